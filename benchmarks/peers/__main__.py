"""Serving against other servers of models, all in one run on one machine; ratios are what counts.

    python -m benchmarks.peers [--peers litserve,bentoml,ray,mosec] [--networks resnet18,resnet50] [--device cpu]
                               [--connections 1,8,32,64] [--seconds 8] [--rounds 2]

All serve the same network to raw uploads of 500×375 JPEGs. Each peer comes in three ways: `as_it_comes`, with its
batching on, one process with the model in float32 as torch has it and torchvision's preset on Pillow, torch's own
number of threads; and with our decoder and the runtime that was found for `bf16` and for `fastest`, a process with one
thread for each core. On a GPU (`--device cuda`, which is the default where there is one) those processes share it, and
`fastest` is left out: it has no runtime of its own there. Beside them in every round: `resnetd up` in the same
precisions, and the hand-written endpoint. Each other round goes through them backwards; of several the median is
reported. Before it is measured each has to name 20 photographs as torchvision does, but for a fifth of them.

The peers live in an environment of their own, `benchmarks/peers/.venv`, made at first use. TorchServe is left out: it
needs Java. Timeouts are long, so that none is slow by refusing. The last line is one JSON object (`--record FILE`:
also there).
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import metadata
from pathlib import Path

import httpx

from app.engine.runtimes.choose import batching
from benchmarks.origin import origin
from benchmarks.parity import torchvisions_answers
from benchmarks.peers import environment
from benchmarks.peers.servers import PEERS, serving
from benchmarks.peers.task import Task
from benchmarks.roofline import best
from benchmarks.serving import (
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
from benchmarks.soak.service import free_port
from store.layout import Layout
from store.settings import Precision

AS_IT_COMES = "as_it_comes"
_ASKED = 20  # photographs, before a server is measured
_RIGHT = 0.8  # of them
_PATIENT = {"max_batch": 16, "wait": 0.01}  # of mosec's example, and near those of the others
_EAGER = 0.001  # seconds: how long a batch waits where the runtime is ours, and hardly gains by batches

Contender = tuple[str, str]
Served = Callable[[], AbstractContextManager[str]]


def contenders(
    data: Path, model: str, network: str, photo: Path, asked: argparse.Namespace, *, work: Path
) -> dict[Contender, Served]:
    """Whoever is measured, by name and way; each is awaited with the photograph."""
    found: dict[Contender, Served] = {}
    for precision in PRECISIONS[asked.device]:
        found["resnetd", precision] = lambda precision=precision: _resnetd(data, model, precision, device=asked.device)
    found["handwritten", AS_IT_COMES] = lambda: handwritten(data, model, network, photo, device=asked.device)
    for peer in asked.peers:
        for way in (AS_IT_COMES, *PRECISIONS[asked.device]):
            place = work / str(len(found))  # short: sockets lie below it
            found[peer, way] = lambda peer=peer, way=way, place=place: serving(
                peer, _task(data, model, network, way, asked), photo, place=place
            )
    return found


@contextmanager
def _resnetd(data: Path, model: str, precision: str, *, device: str) -> Iterator[str]:
    with resnetd(data, model, precision, device=device) as (url, _):
        yield url


def _task(data: Path, model: str, network: str, way: str, asked: argparse.Namespace) -> Task:
    cores = len(os.sched_getaffinity(0))
    folder = Layout(data).models / model / "1"
    common = {"folder": folder, "network": network, "device": asked.device, "port": free_port()}
    if way == AS_IT_COMES:
        return Task(**common, workers=asked.workers, threads=max(1, cores // asked.workers), **_PATIENT)
    found = best(data, model, Precision(way), device=asked.device)
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
    counts = [str(n) for n in connections]
    for precision, ours in found["resnetd"].items():
        others = {
            f"{name} {way}": {n: over(ours.get(n, {}), theirs.get(n, {})) for n in counts}
            for name, ways in found.items()
            for way, theirs in ways.items()
            if name != "resnetd" and way in (AS_IT_COMES, precision)
        }
        result[precision] = {"over": others, "p99_over_p50": {n: tail(ours.get(n, {})) for n in counts}}
    return result


def measure(data: Path, network: str, files: list[Path], asked: argparse.Namespace, *, work: Path) -> Figures:
    """Everybody's figures with this network, and ours over theirs."""
    model = model_of_photographs(data, network, device=asked.device, work=work)
    folder = Layout(data).models / model / "1"
    expected = torchvisions_answers(folder, network, files[:_ASKED]).argmax(axis=1)
    classes = json.loads((folder / "model.json").read_text())["classes"]
    served = contenders(data, model, network, files[0], asked, work=work)
    rounds = []
    for number in range(asked.rounds):
        order = list(served.items())[:: -1 if number % 2 else 1]
        rounds.append(one_round(dict(order), files, [classes[i] for i in expected], asked))
    found: Figures = {}
    for name, way in served:
        every = [each[name, way] for each in rounds]
        found.setdefault(name, {})[way] = median([each for each in every if "failed" not in each] or every)
    return {"figures": found, "ratios": ratios(found, asked.connections)}


def main() -> None:
    asked = _arguments()
    outcome: Figures = {"benchmark": "peers", **origin(), "device": asked.device, "networks": {}}
    with prepared(asked.keep) as (work, data, files):
        environment.install()
        outcome |= {"versions": _versions(), "left_out": {"torchserve": "it needs Java"}}
        for number, network in enumerate(asked.networks):
            outcome["networks"][network] = measure(data, network, files, asked, work=work / str(number))
    tell(outcome, asked.record)


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
    parser.add_argument(
        "--workers", type=int, default=1, help="processes of each peer as it comes, with the cores divided"
    )
    return arguments(parser)


if __name__ == "__main__":
    main()
