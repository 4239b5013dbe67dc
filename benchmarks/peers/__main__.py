"""Serving against other servers of models, all in one run on one machine; ratios are what counts.

`python -m benchmarks.peers [--peers litserve,bentoml,ray,mosec] [--connections 1,8,32,64] [--seconds 8] [--rounds 2]`

All serve one ResNet-18 to raw uploads of 500×375 JPEGs. Each peer comes in three ways: `as_it_comes`, with its batching
on, one process with the model in float32 as torch has it and torchvision's preset on Pillow, torch's own number of
threads; and with our decoder and the runtime that was found for `bf16` and for `fastest`, a process with one thread
for each core. Beside them in every round: `resnetd up` in both precisions, and the hand-written endpoint. Each other
round goes through them backwards; of several the median is reported. Before it is measured each has to name 20
photographs as torchvision does, but for a fifth of them.

The peers live in an environment of their own, `benchmarks/peers/.venv`, made at first use. TorchServe is left out: it
needs Java. Timeouts are long, so that none is slow by refusing. The last line is one JSON object (`--record FILE`:
also there).
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import metadata
from pathlib import Path

import httpx

from app.engine.runtimes.choose import batching
from benchmarks.parity import torchvisions_answers
from benchmarks.peers import environment
from benchmarks.peers.servers import PEERS, serving
from benchmarks.peers.task import Task
from benchmarks.roofline import best
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
from benchmarks.soak.service import free_port
from store.layout import Layout
from store.settings import Precision

NETWORK = "resnet18"
AS_IT_COMES = "as_it_comes"
_ASKED = 20  # photographs, before a server is measured
_RIGHT = 0.8  # of them
_PATIENT = {"max_batch": 16, "wait": 0.01}  # of mosec's example, and near those of the others
_EAGER = 0.001  # seconds: how long a batch waits where the runtime is ours, and hardly gains by batches

Contender = tuple[str, str]
Served = Callable[[], AbstractContextManager[str]]


def contenders(
    data: Path, model: str, files: list[Path], asked: argparse.Namespace, *, work: Path
) -> dict[Contender, Served]:
    """Whoever is measured, by name and way."""
    found: dict[Contender, Served] = {}
    for precision in PRECISIONS:
        found["resnetd", precision] = lambda precision=precision: _resnetd(data, model, precision)
    found["handwritten", AS_IT_COMES] = lambda: handwritten(data, model, NETWORK, files[0])
    for peer in asked.peers:
        for way in (AS_IT_COMES, *PRECISIONS):
            place = work / str(len(found))  # short: sockets lie below it
            found[peer, way] = lambda peer=peer, way=way, place=place: serving(
                peer, _task(data, model, way, workers=asked.workers), files[0], place=place
            )
    return found


@contextmanager
def _resnetd(data: Path, model: str, precision: str) -> Iterator[str]:
    with resnetd(data, model, precision) as (url, _):
        yield url


def _task(data: Path, model: str, way: str, *, workers: int) -> Task:
    cores = len(os.sched_getaffinity(0))
    common = {"folder": Layout(data).models / model / "1", "network": NETWORK, "port": free_port()}
    if way == AS_IT_COMES:
        return Task(**common, workers=workers, threads=max(1, cores // workers), **_PATIENT)
    found = best(data, model, Precision(way))
    return Task(
        **common,
        workers=cores,
        threads=1,
        max_batch=batching(found.measured.loaded, streams=cores)[0],
        wait=_EAGER,
        runtime=found.measured.candidate.runtime,
        numbers=found.measured.candidate.numbers,
        converted=found.converted,
    )


def same_top_1(url: str, files: list[Path], labels: list[str]) -> float:
    """The share of files that a server names as torchvision does. Raises RuntimeError where that are too few."""
    with httpx.Client(timeout=60, trust_env=False) as client:
        answers = [
            client.post(url, content=file.read_bytes(), headers={"Content-Type": "image/jpeg"})
            .raise_for_status()
            .json()
            for file in files
        ]
    said = [(each["results"][0]["top_k"] if "results" in each else each["predictions"])[0]["label"] for each in answers]
    same = sum(a == b for a, b in zip(said, labels, strict=True)) / len(labels)
    if same < _RIGHT:
        raise RuntimeError(f"{url} names {same:.0%} of the photographs as torchvision does: {said[:3]}")
    return same


def one_round(
    served: dict[Contender, Served], files: list[Path], labels: list[str], asked: argparse.Namespace
) -> dict[Contender, Figures]:
    """Each contender's figures by number of connections, or `{"failed": reason}`."""
    found: dict[Contender, Figures] = {}
    for (name, way), start in served.items():
        figures: Figures = {}
        try:
            with start() as url:
                figures["same_top_1"] = same_top_1(url, files[: len(labels)], labels)
                for n in asked.connections:
                    figures[str(n)] = load(url, files, connections=n, seconds=asked.seconds)
        except (RuntimeError, OSError, httpx.HTTPError) as error:
            figures["failed"] = str(error)
        found[name, way] = figures
        rates = {n: each["images_per_second"] for n, each in figures.items() if isinstance(each, dict)}
        say(name, way, rates, figures.get("failed", ""))
    return found


def ratios(found: Figures, connections: list[int]) -> Figures:
    """`resnetd` over each other, by its precision, and by its p99 over its p50."""
    result: Figures = {}
    for precision in PRECISIONS:
        ours = found["resnetd"][precision]
        over: Figures = {}
        for name, ways in found.items():
            for way, theirs in ways.items():
                if name != "resnetd" and way in (AS_IT_COMES, precision):
                    over[f"{name} {way}"] = {str(n): _over(ours, theirs, str(n)) for n in connections}
        tail = {str(n): _tail(ours.get(str(n), {})) for n in connections}
        result[precision] = {"over": over, "p99_over_p50": tail}
    return result


def _over(ours: Figures, theirs: Figures, n: str) -> float | None:
    mine, other = (each.get(n, {}).get("images_per_second") for each in (ours, theirs))
    return round(mine / other, 2) if mine and other else None


def _tail(figures: Figures) -> float | None:
    return round(figures["p99_ms"] / figures["p50_ms"], 2) if figures.get("p50_ms") else None


def main() -> None:
    asked = _arguments()
    if not PHOTOS.is_dir():
        raise SystemExit(f"no photographs in {PHOTOS}: set RESNETD_TEST_DATA")
    environment.install()
    with tempfile.TemporaryDirectory(prefix="resnetd-peers-") as temporary:
        work = Path(temporary)
        files = uploads(work / "uploads")
        data = asked.keep.resolve() if asked.keep else work / "var"
        model = model_of_photographs(data, NETWORK, work=work)
        folder = Layout(data).models / model / "1"
        expected = torchvisions_answers(folder, NETWORK, files[:_ASKED]).argmax(axis=1)
        classes = json.loads((folder / "model.json").read_text())["classes"]
        served = contenders(data, model, files, asked, work=work)
        rounds = []
        for number in range(asked.rounds):
            order = list(served.items())[:: -1 if number % 2 else 1]
            rounds.append(one_round(dict(order), files, [classes[i] for i in expected], asked))
    found: Figures = {}
    for name, way in served:
        every = [each[name, way] for each in rounds]
        found.setdefault(name, {})[way] = median([each for each in every if "failed" not in each] or every)
    outcome: Figures = {
        "benchmark": "peers",
        "network": NETWORK,
        "cores": len(os.sched_getaffinity(0)),
        "cpu": cpu(),
        "versions": _versions(),
        "left_out": {"torchserve": "it needs Java"},
        "figures": found,
        "ratios": ratios(found, asked.connections),
    }
    line = json.dumps(outcome)
    if asked.record:
        asked.record.write_text(line + "\n")
    print(line)


def _versions() -> dict[str, str]:
    place = next(environment.FOLDER.glob("lib/python*/site-packages"))
    found = {each.name: each.version for each in metadata.distributions(path=[str(place)])}
    return {name: found[name] for name in PEERS}


def _arguments() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        unknown = set(text.split(",")) - set(PEERS)
        if unknown:
            raise argparse.ArgumentTypeError(f"no {', '.join(sorted(unknown))}; there are: {', '.join(PEERS)}")
        return text.split(",")

    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=names, default=list(PEERS), help="which, with commas")
    parser.add_argument("--connections", type=numbers, default=[1, 8, 32, 64])
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--workers", type=int, default=1, help="processes of each peer as it comes, with the cores divided"
    )
    parser.add_argument("--keep", type=Path, help="a data directory that stays, with its model and measured runtimes")
    parser.add_argument("--record", type=Path, help="where to write the JSON object too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
