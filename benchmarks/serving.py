"""What the benchmarks of serving share: a model and photographs, servers to compare, load, and medians."""

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from benchmarks.photo_models import photographs, publish
from benchmarks.running import answering
from benchmarks.soak.service import free_port
from benchmarks.stack import Stack
from store.layout import Layout

PHOTOS = Path(os.environ.get("RESNETD_TEST_DATA", "../shared/data")).resolve() / "photos"
PRECISIONS = ("bf16", "fastest")
Figures = dict[str, Any]


def say(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)


def uploads(folder: Path) -> list[Path]:
    """The photographs as 500×375 JPEGs."""
    folder.mkdir()
    files = []
    for path in photographs(PHOTOS):
        files.append(folder / path.name)
        ImageOps.fit(Image.open(path).convert("RGB"), (500, 375)).save(files[-1], quality=92)
    return files


def model_of_photographs(data: Path, network: str, *, work: Path) -> str:
    """A model of `network` that knows the photographs, made if it is not there, its runtimes measured; its name."""
    models = Layout(data).create().models
    model = f"{network}-photos"
    if not (models / model).exists():
        say("making", model)
        publish(models, network, photographs(PHOTOS), work=work)
    measure_runtimes(data, model)
    return model


def measure_runtimes(data: Path, model: str) -> None:
    """Find out what serves the model fastest, as an engine does at its first start, while nothing else runs."""
    folder = Layout(data).models / model / "1"
    command = [sys.executable, "-m", "app.engine.runtimes", str(folder), "--model", model, "--version", "1"]
    settings = {"RESNETD_DATA": str(data), "RESNETD_PRECISION": "fastest", "RESNETD_DEVICE": "cpu"}
    subprocess.run([*command, "--device", "cpu"], env={**os.environ, **settings}, check=True)


def load(url: str, files: list[Path], *, connections: int, seconds: float) -> Figures:
    """What a closed loop of so many connections gets. Raises RuntimeError where the generator fails."""
    command = [sys.executable, "-m", "benchmarks.load", url, *map(str, files)]
    options = ["--connections", str(connections), "--seconds", str(seconds)]
    ended = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"the load on {url} ended with status {ended.returncode}")
    return json.loads(ended.stdout.splitlines()[-1])


@contextmanager
def resnetd(data: Path, model: str, precision: str) -> Iterator[tuple[str, Figures]]:
    """A running `resnetd up` that serves the model; its address, and what it says of the model's runtime."""
    os.environ.update(RESNETD_MODEL=model, RESNETD_PRECISION=precision, RESNETD_DEVICE="cpu")
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
def handwritten(data: Path, model: str, network: str, photo: Path) -> Iterator[str]:
    """The endpoint that people write, serving the model; its address, once it has answered the photograph."""
    folder, port = Layout(data).models / model / "1", free_port()
    command = [sys.executable, "-m", "benchmarks.handwritten", str(folder), network, "--port", str(port)]
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


def cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def numbers(text: str) -> list[int]:
    """`1,8,32` of a command line."""
    return [int(part) for part in text.split(",")]
