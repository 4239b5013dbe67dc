"""Serving against the machine's limit and against what people write, all in one run; ratios are what counts.

`python -m benchmarks.serve [--networks resnet18,resnet50] [--connections 1,8,32,64] [--seconds 8] [--rounds 2]`

For each network, a model that knows a folder of photographs (RESNETD_TEST_DATA/photos) is made and its runtimes are
measured. Then, in each round and for each precision: the bare loops (decode, prepare, compute; no server), `resnetd up`
at each number of connections, and once a round a hand-written FastAPI endpoint on torchvision, float32, as people write
it. Photographs are 500×375 JPEGs, uploaded raw; of several rounds the median is reported. At last the answers to the
photographs as they are, are compared with torchvision's own. The last line is one JSON object (`--record FILE`: also
there).
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.parity import parity, torchvisions_answers
from benchmarks.photo_models import photographs
from benchmarks.serving import (
    PHOTOS,
    PRECISIONS,
    Figures,
    cpu,
    handwritten,
    load,
    median,
    model_of_photographs,
    numbers,
    resnetd,
    say,
    uploads,
)
from store.layout import Layout


def bare(
    data: Path, model: str, precision: str, files: list[Path], *, seconds: float, split: tuple[int, ...]
) -> Figures:
    """Bare loops side by side, one for each number of cores in `split`; their images a second together."""
    single = ["--single"] if len(split) == 1 else []
    command = [sys.executable, "-m", "benchmarks.roofline", str(data), model, *map(str, files[:32]), *single]
    options = ["--precision", precision, "--seconds", str(seconds)]
    loops = [
        subprocess.Popen(
            [*command, *options, "--cores", str(cores)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for cores in split
    ]
    for loop in loops:
        assert loop.stdout.readline() == "ready\n"
    for loop in loops:
        loop.stdin.write("\n")
        loop.stdin.flush()
    ended = [json.loads(loop.communicate()[0].splitlines()[-1]) for loop in loops]
    return {
        "images_per_second": round(sum(each["images_per_second"] for each in ended), 1),
        "p50_ms": round(statistics.median(each["p50_ms"] / each["batch"] for each in ended), 1),
    }


def parities(data: Path, model: str, network: str) -> Figures:
    """How near each precision comes to torchvision's own preset and model, on the photographs as they are."""
    photos = photographs(PHOTOS)
    expected = torchvisions_answers(Layout(data).models / model / "1", network, photos)
    found = {}
    for precision in ("exact", *PRECISIONS):
        with resnetd(data, model, precision) as (url, _):
            found[precision] = parity(url, photos, expected)
    say(network, "parity", found)
    return found


def one_round(data: Path, model: str, network: str, files: list[Path], asked: argparse.Namespace) -> Figures:
    cores = len(os.sched_getaffinity(0))
    found: Figures = {}
    for precision in PRECISIONS:
        loops = {
            "alone": bare(data, model, precision, files, seconds=asked.seconds, split=(cores,)),
            "divided": bare(data, model, precision, files, seconds=asked.seconds, split=(1,) * cores),
        }
        with resnetd(data, model, precision) as (url, runtime):
            served = {str(n): load(url, files, connections=n, seconds=asked.seconds) for n in asked.connections}
        found[precision] = {"runtime": runtime, "bare": loops, "served": served}
        say(network, precision, loops, {n: each["images_per_second"] for n, each in served.items()})
    with handwritten(data, model, network, files[0]) as url:
        found["handwritten"] = {
            str(n): load(url, files, connections=n, seconds=asked.seconds) for n in asked.connections
        }
    say(network, "handwritten", {n: each["images_per_second"] for n, each in found["handwritten"].items()})
    return found


def ratios(found: Figures) -> Figures:
    """What the issue of this benchmark asks for: of the best bare loop, over the hand-written one, alone over bare."""
    result: Figures = {}
    for precision in PRECISIONS:
        part, most = found[precision], max(each["images_per_second"] for each in found[precision]["bare"].values())
        rows: Figures = {}
        for connections, served in part["served"].items():
            theirs = found["handwritten"][connections]["images_per_second"]
            rows[connections] = {
                "of_bare": round(served["images_per_second"] / most, 3),
                "over_handwritten": round(served["images_per_second"] / theirs, 2) if theirs else None,
                "p99_over_p50": round(served["p99_ms"] / served["p50_ms"], 2) if served["p50_ms"] else None,
            }
        if "1" in rows:
            alone = part["bare"]["alone"]["p50_ms"]
            rows["1"]["p50_over_bare"] = round(part["served"]["1"]["p50_ms"] / alone, 3)
        result[precision] = rows
    return result


def main() -> None:
    asked = _arguments()
    if not PHOTOS.is_dir():
        raise SystemExit(f"no photographs in {PHOTOS}: set RESNETD_TEST_DATA")
    outcome: Figures = {"benchmark": "serve", "cores": len(os.sched_getaffinity(0)), "cpu": cpu(), "networks": {}}
    with tempfile.TemporaryDirectory(prefix="resnetd-serve-") as temporary:
        work = Path(temporary)
        files = uploads(work / "uploads")
        data = asked.keep.resolve() if asked.keep else work / "var"
        for network in asked.networks:
            model = model_of_photographs(data, network, work=work)
            found = median([one_round(data, model, network, files, asked) for _ in range(asked.rounds)])
            figures = {**found, "ratios": ratios(found), "parity": parities(data, model, network)}
            outcome["networks"][network] = figures
        shutil.rmtree(work / "uploads")
    line = json.dumps(outcome)
    if asked.record:
        asked.record.write_text(line + "\n")
    print(line)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=lambda text: text.split(","), default=["resnet18", "resnet50"])
    parser.add_argument("--connections", type=numbers, default=[1, 8, 32, 64])
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="a data directory that stays, with its models and measured runtimes")
    parser.add_argument("--record", type=Path, help="where to write the JSON object too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
