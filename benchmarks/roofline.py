"""The most that this machine could serve: decode, prepare and compute in a bare loop, without a server around it.

`python -m benchmarks.roofline DATA MODEL --precision bf16 --cores 1 --seconds 5 FILE…` loops with the runtime that was
found to be best for the model here, on so many cores, and prints one JSON object. Start several to fill the machine.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.engine.decode import reader
from app.engine.runtimes import records
from app.engine.runtimes.base import Loaded
from app.engine.runtimes.choose import batching, choose
from app.engine.runtimes.loading import load
from app.engine.runtimes.records import Measured
from app.engine.runtimes.threads import use_threads
from models import runtime as reference_runtime
from models.catalog import Catalog
from models.manifest import Manifest
from models.runtime import probabilities
from store.layout import Layout
from store.settings import Precision, RuntimeName


@dataclass(frozen=True)
class Best:
    """A model version and the runtime that was found to serve it best here."""

    folder: Path
    manifest: Manifest
    measured: Measured
    converted: Path

    def load(self, *, cores: int) -> Loaded:
        def reference() -> reference_runtime.Runtime:
            return reference_runtime.load(self.folder, "cpu")

        return load(self.measured.candidate, reference, self.converted, device="cpu", cores=cores)


def best(data: Path, model: str, precision: Precision) -> Best:
    """Of version 1 of the model in the data directory. Raises SystemExit where it was not measured."""
    layout = Layout(data)
    catalog = Catalog(layout.models)
    manifest = catalog.manifest(model, 1)
    cache = records.Cache(layout.runtimes, model=model, version=1, device="cpu", cores=records.cores())
    record = cache.read(weights_sha256=manifest.weights_sha256, precision=precision, runtime=RuntimeName.AUTO)
    measured = choose(record.measured, precision=precision, runtime=RuntimeName.AUTO) if record else None
    if measured is None:
        raise SystemExit(f"{model} was not measured for {precision} yet")
    return Best(catalog.folder(model, 1), manifest, measured, cache.folder)


def main() -> None:
    asked = _arguments()
    found = best(asked.data, asked.model, asked.precision)
    manifest, loaded = found.manifest, found.load(cores=asked.cores)
    size = 1 if asked.single else batching(found.measured.loaded, streams=asked.cores)[0]
    read = reader(manifest.preprocessing, max_pixels=10**8, exact=asked.precision is Precision.EXACT)
    files = [file.read_bytes() for file in asked.files]
    use_threads(asked.cores)

    def once(start: int) -> None:
        pixels = np.stack([read(files[(start + i) % len(files)])[0] for i in range(size)])
        probabilities(loaded.wide(pixels).logits, manifest).argsort(axis=1)

    once(0)
    print("ready", flush=True)
    sys.stdin.readline()  # all of several begin together
    times: list[float] = []
    began = time.perf_counter()
    while (at := time.perf_counter()) < began + asked.seconds:
        once(len(times) * size)
        times.append(time.perf_counter() - at)
    spent = time.perf_counter() - began
    middle = sorted(times)[len(times) // 2]
    print(
        json.dumps({"images_per_second": len(times) * size / spent, "p50_ms": middle * 1000, "batch": size}), flush=True
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("model")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--precision", type=Precision, default=Precision.BF16)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--single", action="store_true", help="one image at a time")
    return parser.parse_args()


if __name__ == "__main__":
    main()
