"""The most that this machine could serve: decode, prepare and compute in a bare loop, without a server around it.

`python -m benchmarks.roofline DATA MODEL --precision bf16 --cores 1 --seconds 5 FILE…` loops with the runtime that was
found to be best for the model here, on so many cores, and prints one JSON object. Start several to fill the machine.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from app.engine.decode import reader
from app.engine.runtimes import records
from app.engine.runtimes.choose import batching, choose
from app.engine.runtimes.loading import load
from app.engine.runtimes.threads import use_threads
from models import runtime as reference_runtime
from models.catalog import Catalog
from models.runtime import probabilities
from store.layout import Layout
from store.settings import Precision, RuntimeName


def main() -> None:
    asked = _arguments()
    layout = Layout(asked.data)
    folder = Catalog(layout.models).folder(asked.model, 1)
    manifest = Catalog(layout.models).manifest(asked.model, 1)
    cache = records.Cache(layout.runtimes, model=asked.model, version=1, device="cpu", cores=records.cores())
    record = cache.read(weights_sha256=manifest.weights_sha256, precision=asked.precision, runtime=RuntimeName.AUTO)
    best = choose(record.measured, precision=asked.precision, runtime=RuntimeName.AUTO) if record else None
    if best is None:
        raise SystemExit(f"{asked.model} was not measured for {asked.precision} yet")
    loaded = load(
        best.candidate, lambda: reference_runtime.load(folder, "cpu"), cache.folder, device="cpu", cores=asked.cores
    )
    size = 1 if asked.single else batching(best.loaded, streams=asked.cores)[0]
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
