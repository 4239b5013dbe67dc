"""Serving against the machine's limit and against what people write, all in one run; ratios are what counts.

    python -m benchmarks.serve [--networks resnet18,resnet50] [--device cpu] [--connections 1,8,32,64] [--seconds 8]
                               [--rounds 2]

For each network, a model that knows a folder of photographs (RESNETD_TEST_DATA/photos) is made and its runtimes are
measured. Then, in each round and for each precision: the bare loops (decode, prepare, compute; no server), `resnetd up`
at each number of connections, and once a round a hand-written FastAPI endpoint on torchvision, float32, as people write
it. Photographs are 500×375 JPEGs, uploaded raw; of several rounds the median is reported. At last the answers to the
photographs as they are, are compared with torchvision's own. The last line is one JSON object (`--record FILE`: also
there).

On a GPU (`--device cuda`, which is the default where there is one) the cores decode while the GPU computes: bare loops
are decoding on every core, and computing in the batches that were measured to be the fastest; the slower is the limit.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.origin import origin
from benchmarks.parity import parity, torchvisions_answers
from benchmarks.photo_models import photographs
from benchmarks.roofline import Part
from benchmarks.serving import (
    PHOTOS,
    PRECISIONS,
    Figures,
    arguments,
    handwritten,
    load,
    median,
    model_of_photographs,
    over,
    prepared,
    resnetd,
    say,
    tail,
    tell,
)
from store.layout import Layout


def bare(data: Path, model: str, precision: str, files: list[Path], asked: argparse.Namespace) -> Figures:
    """Loops without a server: of lone images, and of whatever the device's limit is told by."""
    cores = len(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "benchmarks.roofline", str(data), model, *map(str, files[:32])]
    command += ["--precision", precision, "--seconds", str(asked.seconds), "--device", asked.device]
    found = {"alone": side_by_side([*command, "--single"], split=(cores,))}
    if asked.device == "cpu":
        found["divided"] = side_by_side(command, split=(1,) * cores)
        found["threads"] = side_by_side([*command, "--threads", str(cores)], split=(1,))
    else:
        found["decode"] = side_by_side([*command, "--part", Part.DECODE], split=(1,) * cores)
        found["forward"] = side_by_side([*command, "--part", Part.FORWARD], split=(cores,))
    return found


def side_by_side(command: list[str], *, split: tuple[int, ...]) -> Figures:
    """Bare loops, one for each number of cores in `split`; their images a second together."""
    loops = [
        subprocess.Popen([*command, "--cores", str(cores)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
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
        "p50_ms": round(statistics.median(each["p50_ms"] / each["batch"] for each in ended), 2),
        "batch": ended[0]["batch"],
    }


def limit(loops: Figures) -> float:
    """The most that this machine could serve, in images a second.

    Decoding and computing go on beside each other on a GPU, so that the slower is the limit. On a CPU they share the
    cores: it is the faster loop of both.
    """
    rates = {name: each["images_per_second"] for name, each in loops.items()}
    return min(rates["decode"], rates["forward"]) if "forward" in rates else max(rates.values())


def parities(data: Path, model: str, network: str, *, device: str) -> Figures:
    """How near each precision comes to torchvision's own preset and model, on the photographs as they are."""
    photos = photographs(PHOTOS)
    expected = torchvisions_answers(Layout(data).models / model / "1", network, photos)
    found = {}
    for precision in ("exact", *PRECISIONS[device]):
        with resnetd(data, model, precision, device=device) as (url, _):
            found[precision] = parity(url, photos, expected)
    say(network, "parity", found)
    return found


def one_round(data: Path, model: str, network: str, files: list[Path], asked: argparse.Namespace) -> Figures:
    found: Figures = {}
    for precision in PRECISIONS[asked.device]:
        loops = bare(data, model, precision, files, asked)
        with resnetd(data, model, precision, device=asked.device) as (url, runtime):
            served = {str(n): load(url, files, connections=n, seconds=asked.seconds) for n in asked.connections}
        found[precision] = {"runtime": runtime, "bare": loops, "served": served}
        say(network, precision, loops, {n: each["images_per_second"] for n, each in served.items()})
    with handwritten(data, model, network, files[0], device=asked.device) as url:
        found["handwritten"] = {
            str(n): load(url, files, connections=n, seconds=asked.seconds) for n in asked.connections
        }
    say(network, "handwritten", {n: each["images_per_second"] for n, each in found["handwritten"].items()})
    return found


def ratios(found: Figures) -> Figures:
    """What the issue of this benchmark asks for: of the machine's limit, over the hand-written one, alone over bare."""
    result: Figures = {}
    for precision, part in found.items():
        if precision == "handwritten":
            continue
        rows: Figures = {}
        for connections, served in part["served"].items():
            rows[connections] = {
                "of_bare": round(served["images_per_second"] / limit(part["bare"]), 3),
                "over_handwritten": over(served, found["handwritten"][connections]),
                "p99_over_p50": tail(served),
            }
        if "1" in rows:
            alone = part["bare"]["alone"]["p50_ms"]
            rows["1"]["p50_over_bare"] = round(part["served"]["1"]["p50_ms"] / alone, 3)
        result[precision] = rows
    return result


def main() -> None:
    asked = arguments(argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__.splitlines()[0]))
    outcome: Figures = {"benchmark": "serve", **origin(), "device": asked.device, "networks": {}}
    with prepared(asked.keep) as (work, data, files):
        for network in asked.networks:
            model = model_of_photographs(data, network, device=asked.device, work=work)
            found = median([one_round(data, model, network, files, asked) for _ in range(asked.rounds)])
            figures = {**found, "ratios": ratios(found), "parity": parities(data, model, network, device=asked.device)}
            outcome["networks"][network] = figures
    tell(outcome, asked.record)


if __name__ == "__main__":
    main()
