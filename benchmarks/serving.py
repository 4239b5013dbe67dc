"""What the benchmarks of serving share: options, a model and photographs, servers to compare, load, and medians."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from benchmarks.photo_models import photographs, publish
from benchmarks.running import answering
from benchmarks.soak.service import free_port
from benchmarks.stack import Stack
from store.layout import Layout

PHOTOS = Path(os.environ.get("RESNETD_TEST_DATA", "../shared/data")).resolve() / "photos"
#: Those that differ on a device: no runtime of a GPU has int8.
PRECISIONS = {"cpu": ("bf16", "fastest"), "cuda": ("bf16",)}
CONNECTIONS = {"cpu": [1, 8, 32, 64], "cuda": [1, 64, 512]}
Figures = dict[str, Any]


def arguments(parser: argparse.ArgumentParser, words: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked for, with the options that all benchmarks of serving have."""
    parser.add_argument("--networks", type=lambda text: text.split(","), default=["resnet18", "resnet50"])
    add_device(parser)
    parser.add_argument("--connections", type=numbers, help="default: 1,8,32,64; with cuda 1,64,512")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="a data directory that stays, with its models and measured runtimes")
    parser.add_argument("--record", type=Path, help="where to write the JSON object too")
    asked = parser.parse_args(words)
    asked.connections = asked.connections or CONNECTIONS[asked.device]
    return asked


def add_device(parser: argparse.ArgumentParser) -> None:
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    parser.add_argument("--device", choices=devices, default=devices[-1], help="cuda where there is one")


def numbers(text: str) -> list[int]:
    """`1,8,32` of a command line."""
    return [int(part) for part in text.split(",")]


def say(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)


def tell(outcome: Figures, record: Path | None) -> None:
    """The last line, which goes to a file too where that was asked for."""
    line = json.dumps(outcome)
    if record:
        record.write_text(line + "\n")
    print(line)


@contextmanager
def prepared(keep: Path | None) -> Iterator[tuple[Path, Path, list[Path]]]:
    """A temporary folder, the data directory, and the photographs to send. Raises SystemExit where there are none."""
    if not PHOTOS.is_dir():
        raise SystemExit(f"no photographs in {PHOTOS}: set RESNETD_TEST_DATA")
    with tempfile.TemporaryDirectory(prefix="resnetd-bench-") as folder:
        work = Path(folder)
        yield work, keep.resolve() if keep else work / "var", uploads(work / "uploads")


def uploads(folder: Path) -> list[Path]:
    """The photographs as 500×375 JPEGs."""
    folder.mkdir()
    files = []
    for path in photographs(PHOTOS):
        files.append(folder / path.name)
        ImageOps.fit(Image.open(path).convert("RGB"), (500, 375)).save(files[-1], quality=92)
    return files


def model_of_photographs(data: Path, network: str, *, device: str, work: Path) -> str:
    """A model of `network` that knows the photographs, made if it is not there, its runtimes measured; its name."""
    models = Layout(data).create().models
    model = f"{network}-photos"
    if not (models / model).exists():
        say("making", model)
        publish(models, network, photographs(PHOTOS), work=work)
    measure_runtimes(data, model, device=device)
    return model


def measure_runtimes(data: Path, model: str, *, device: str) -> None:
    """Find out what serves the model fastest, as an engine does at its first start, while nothing else runs."""
    folder = Layout(data).models / model / "1"
    command = [sys.executable, "-m", "app.engine.runtimes", str(folder), "--model", model, "--version", "1"]
    settings = {"RESNETD_DATA": str(data), "RESNETD_PRECISION": "fastest", "RESNETD_DEVICE": device}
    subprocess.run([*command, "--device", device], env={**os.environ, **settings}, check=True)


def load(url: str, files: list[Path], *, connections: int, seconds: float) -> Figures:
    """What a closed loop of so many connections gets. Raises RuntimeError where the generator fails."""
    command = [sys.executable, "-m", "benchmarks.load", url, *map(str, files)]
    options = ["--connections", str(connections), "--seconds", str(seconds)]
    ended = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"the load on {url} ended with status {ended.returncode}")
    return json.loads(ended.stdout.splitlines()[-1])


@contextmanager
def resnetd(data: Path, model: str, precision: str, *, device: str) -> Iterator[tuple[str, Figures]]:
    """A running `resnetd up` that serves the model; its address, and what it says of the model's runtime."""
    os.environ.update(RESNETD_MODEL=model, RESNETD_PRECISION=precision, RESNETD_DEVICE=device)
    stack = Stack(data)
    took = stack.start()
    try:
        with stack.client() as client:
            loaded = client.get(f"/v1/models/{model}").raise_for_status().json().get("loaded") or [{}]
        yield (
            f"{stack.url}/v1/models/{model}:classify",
            {"start_seconds": round(took, 1), **(loaded[0].get("runtime") or {})},
        )
    finally:
        stack.stop()


@contextmanager
def handwritten(data: Path, model: str, network: str, photo: Path, *, device: str) -> Iterator[str]:
    """The endpoint that people write, serving the model; its address, once it has answered the photograph."""
    folder, port = Layout(data).models / model / "1", free_port()
    command = [sys.executable, "-m", "benchmarks.handwritten", str(folder), network]
    command += ["--port", str(port), "--device", device]
    url = f"http://127.0.0.1:{port}/classify"
    with answering(command, url, photo):
        yield url


def median(rounds: list[Any]) -> Any:  # noqa: ANN401 - figures of any shape
    """Numbers by their median, everything else as it was in the first round."""
    first = rounds[0]
    if isinstance(first, dict):
        return {key: median([each[key] for each in rounds if key in each]) for key in first}
    if isinstance(first, (int, float)) and not isinstance(first, bool):
        return round(statistics.median(each for each in rounds if each is not None), 2)
    return first


def over(ours: Figures, theirs: Figures) -> float | None:
    """How many times as many images a second; None where there is nothing to compare."""
    mine, other = ours.get("images_per_second"), theirs.get("images_per_second")
    return round(mine / other, 2) if mine and other else None


def tail(figures: Figures) -> float | None:
    """The 99th percentile over the median."""
    return round(figures["p99_ms"] / figures["p50_ms"], 2) if figures.get("p50_ms") else None
