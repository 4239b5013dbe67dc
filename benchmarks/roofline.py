"""The most that this machine could serve: decode, prepare and compute in a bare loop, without a server around it.

`python -m benchmarks.roofline DATA MODEL --precision bf16 --cores 1 --seconds 5 FILE…` loops with the runtime that was
found to be best for the model here, on so many cores, and prints one JSON object. Start several to fill the machine,
or give it `--threads`, each of which decodes and computes batches of its own on one core.

`--part decode` makes pixels of files and nothing else, `--part forward` takes pixels that are there, in batches of the
size that was measured to be the fastest. `--device cuda` computes on the GPU: whatever a runtime gives lies in the
host's memory, so that the GPU has ended when a clock is read.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from pathlib import Path

import numpy as np

from app.engine.decode import Pixels, reader
from app.engine.runtimes import records
from app.engine.runtimes.base import Loaded
from app.engine.runtimes.choose import batching, choose
from app.engine.runtimes.loading import load
from app.engine.runtimes.records import Measured
from app.engine.runtimes.threads import use_threads
from benchmarks.serving import add_device
from models import runtime as reference_runtime
from models.catalog import Catalog
from models.manifest import Manifest
from models.runtime import probabilities
from store.layout import Layout
from store.settings import Precision, RuntimeName


class Part(StrEnum):
    """What is timed of an image's way."""

    BOTH = "both"  # from the file to the classes in order
    DECODE = "decode"  # from the file to the network's pixels
    FORWARD = "forward"  # from there on


@dataclass(frozen=True)
class Best:
    """A model version and the runtime that was found to serve it best here."""

    folder: Path
    manifest: Manifest
    device: str
    measured: Measured
    converted: Path

    def load(self, *, cores: int) -> Loaded:
        def reference() -> reference_runtime.Runtime:
            return reference_runtime.load(self.folder, self.device)

        return load(self.measured.candidate, reference, self.converted, device=self.device, cores=cores)


def best(data: Path, model: str, precision: Precision, *, device: str) -> Best:
    """Of version 1 of the model in the data directory. Raises SystemExit where it was not measured."""
    layout = Layout(data)
    catalog = Catalog(layout.models)
    manifest = catalog.manifest(model, 1)
    cache = records.Cache(layout.runtimes, model=model, version=1, device=device, cores=records.cores())
    record = cache.read(weights_sha256=manifest.weights_sha256, precision=precision, runtime=RuntimeName.AUTO)
    measured = choose(record.measured, precision=precision, runtime=RuntimeName.AUTO) if record else None
    if measured is None:
        raise SystemExit(f"{model} was not measured for {precision} on {device} yet")
    return Best(catalog.folder(model, 1), manifest, device, measured, cache.folder)


@dataclass(frozen=True)
class Loop:
    """What is repeated: `once`, which is told the number of its first image, and takes `images`."""

    once: Callable[[int], object]
    images: int


def loop_of(asked: argparse.Namespace) -> Loop:
    """Raises SystemExit where it needs a runtime and none was measured."""
    files = [file.read_bytes() for file in asked.files]
    manifest = Catalog(Layout(asked.data).models).manifest(asked.model, 1)
    read = reader(manifest.preprocessing, max_pixels=10**8, exact=asked.precision is Precision.EXACT)
    if asked.part is Part.DECODE:
        return Loop(lambda start: read(files[start % len(files)]), images=1)
    found = best(asked.data, asked.model, asked.precision, device=asked.device)
    rates, loaded = found.measured.loaded, found.load(cores=max(asked.cores, asked.threads))
    compute = loaded.narrow if asked.threads > 1 and loaded.narrow else loaded.wide
    if asked.single:
        images = 1
    elif asked.part is Part.FORWARD:
        images = max(rates, key=rates.__getitem__)
    else:
        images = batching(rates, streams=max(asked.cores, asked.threads))[0]

    def forward(batch: list[Pixels]) -> object:
        return probabilities(compute(np.stack(batch)).logits, manifest).argsort(axis=1)

    if asked.part is Part.FORWARD:
        ready = [read(file)[0] for file in files]
        return Loop(lambda start: forward([ready[(start + i) % len(ready)] for i in range(images)]), images)
    return Loop(lambda start: forward([read(files[(start + i) % len(files)])[0] for i in range(images)]), images)


def main() -> None:
    asked = _arguments()
    loop = loop_of(asked)
    print(json.dumps(timed(loop, seconds=asked.seconds, threads=asked.threads, cores=asked.cores)), flush=True)


def timed(loop: Loop, *, seconds: float, threads: int, cores: int) -> dict[str, float]:
    """Says `ready` and begins with the next line of standard input, so that all of several begin together."""
    with ThreadPoolExecutor(threads, initializer=use_threads, initargs=(cores,)) as pool:
        list(pool.map(loop.once, [0] * 2 * threads))  # runtimes may have a network for each thread
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.perf_counter()
        times = sorted(chain(*pool.map(lambda first: _repeat(loop, first, until=began + seconds), range(threads))))
    spent = time.perf_counter() - began
    middle = times[len(times) // 2]
    return {"images_per_second": len(times) * loop.images / spent, "p50_ms": middle * 1000, "batch": loop.images}


def _repeat(loop: Loop, first: int, *, until: float) -> list[float]:
    """Seconds of each time that one thread went through the loop."""
    times: list[float] = []
    while (at := time.perf_counter()) < until:
        loop.once(first + len(times) * loop.images)
        times.append(time.perf_counter() - at)
    return times


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("model")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--part", type=Part, default=Part.BOTH, help="both, decode or forward")
    parser.add_argument("--precision", type=Precision, default=Precision.BF16)
    add_device(parser)
    parser.add_argument("--cores", type=int, default=1, help="for each thread")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--single", action="store_true", help="one image at a time")
    return parser.parse_args()


if __name__ == "__main__":
    main()
