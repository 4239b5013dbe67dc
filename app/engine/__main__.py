"""`python -m app.engine FOLDER --socket PATH --model NAME --version N --device D`: serves one model version.

Standard output has one JSON line: `{"state": "ready", "device": …}` once the socket listens, or
`{"state": "failed", "reason": …}`. Exit status: 0 after SIGTERM, 3 where the files are
damaged or the golden outputs are not reproduced.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import torch

from app.engine.batch import MAX_BATCH, Batcher
from app.engine.pipeline import Limits, Pipeline
from app.engine.server import Server
from models import golden
from models.runtime import ModelDamagedError, Runtime, load, probabilities
from store import logs
from store.process import attach_to_parent
from store.settings import Settings

log = logging.getLogger("app.engine")

DAMAGED = 3
_DRAIN_SECONDS = 10.0
_WAITING_REQUESTS = 4  # of the largest size whose bytes may lie in memory undecoded


def main() -> int:
    arguments = _arguments()
    attach_to_parent()
    os.umask(0o077)
    settings = Settings()
    logs.configure(settings.log_level, part=f"engine {arguments.model}@{arguments.version}")
    try:
        runtime = _load(arguments.folder, arguments.device)
    except ModelDamagedError as error:
        return _refuse(str(error), status=DAMAGED)
    except Exception as error:  # whatever is wrong with a model's files or device is told, not only its traceback
        log.exception("the model cannot be loaded")
        return _refuse(f"it cannot be loaded: {type(error).__name__}: {error}", status=1)
    asyncio.run(_serve(runtime, arguments.socket, settings))
    return 0


def _load(folder: Path, device: str) -> Runtime:
    """The model, warm, on a device that gives what it gave when it was trained."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    runtime = load(folder, device)
    golden.check(runtime, folder)
    to = runtime.manifest.preprocessing
    for images in (1, MAX_BATCH):  # the first pass of a size is slow: memory is allocated and kernels are chosen
        runtime.logits(np.zeros((images, to.height, to.width, to.channels), dtype=np.uint8))
    return runtime


async def _serve(runtime: Runtime, socket: Path, settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    manifest = runtime.manifest

    def compute(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        return probabilities(runtime.logits(images), manifest)

    batcher = Batcher(compute)
    limits = Limits(
        images=settings.max_waiting_images,
        bytes=_WAITING_REQUESTS * settings.max_request_bytes,
        pixels_per_image=settings.max_image_pixels,
    )
    pipeline = Pipeline(manifest, batcher, limits=limits, decode_threads=len(os.sched_getaffinity(0)))
    server = Server(pipeline, max_payload=settings.max_request_bytes)
    batching = asyncio.create_task(batcher.run())
    await server.listen(socket)
    _say(state="ready", device=str(runtime.device))
    log.info("ready", extra={"device": str(runtime.device)})
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({batching, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if batching.done():
        batching.result()  # raises: an engine without its batch loop would only look alive
    await server.drain(seconds=_DRAIN_SECONDS)
    log.info("stopped")


def _refuse(reason: str, *, status: int) -> int:
    log.error(reason)
    _say(state="failed", reason=reason)
    return status


def _say(**fields: Any) -> None:  # noqa: ANN401 - anything that JSON can hold
    sys.stdout.buffer.write(orjson.dumps(fields) + b"\n")
    sys.stdout.buffer.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app.engine", description="Serve one model version.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--version", type=int, required=True)
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
