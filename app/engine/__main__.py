"""`python -m app.engine FOLDER --socket PATH --model NAME --version N --device D`: serves one model version.

Standard output has a JSON line, `{"state": "ready", "device": …, "runtime": …}`, once the socket listens, and another
one when a faster runtime has been found and serves; or `{"state": "failed", "reason": …}`. Nothing else: what libraries
print goes to standard error. Exit status: 0 after SIGTERM, 3 where the files are damaged or the golden outputs are not
reproduced.
"""

import os

if __name__ == "__main__":
    # Before all else is imported: some libraries print then.
    _SAID = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

import argparse
import asyncio
import itertools
import logging
import signal
import sys
from pathlib import Path
from typing import Any

import orjson
import uvloop

from app.engine.batch import Batcher
from app.engine.decode import reader
from app.engine.pipeline import Pipeline
from app.engine.runtimes.records import cores
from app.engine.selection import Selected, Selection
from app.engine.server import Server
from app.inference.limits import engine_limits
from app.inference.protocol import DAMAGED_STATUS
from models.manifest import ModelDamagedError
from store import collector, logs
from store.process import attach_to_parent
from store.settings import Precision, Settings

log = logging.getLogger("app.engine")

_DRAIN_SECONDS = 10.0
# Seconds before measuring: whoever started this engine has a first request. The others where measuring failed, or found
# no time beside other work; the last again and again.
_PAUSES = (2.0, 600.0, 3600.0, 6 * 3600.0)


def main() -> int:
    arguments = _arguments()
    attach_to_parent()
    os.umask(0o077)
    settings = Settings()
    logs.configure(settings.log_level, part=f"engine {arguments.model}@{arguments.version}")
    try:
        selection = Selection(
            arguments.folder,
            model=arguments.model,
            version=arguments.version,
            device=arguments.device,
            settings=settings,
        )
        selected = selection.known() or selection.like_another() or selection.reference_serves()
    except ModelDamagedError as error:
        return _refuse(str(error), status=DAMAGED_STATUS)
    except Exception as error:  # whatever is wrong with a model's files or device is told, not only its traceback
        log.exception("the model cannot be loaded")
        return _refuse(f"it cannot be loaded: {type(error).__name__}: {error}", status=1)
    collector.settle()
    uvloop.run(_serve(selection, selected, arguments.socket, settings, measure=not selection.complete))
    return 0


async def _serve(selection: Selection, selected: Selected, socket: Path, settings: Settings, *, measure: bool) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    to = selection.manifest.preprocessing
    batcher = Batcher(selected.computing)
    pipeline = Pipeline(
        selection.manifest,
        batcher,
        read=reader(to, max_pixels=settings.max_image_pixels, exact=settings.precision is Precision.EXACT),
        limits=engine_limits(settings),
        decode_threads=cores(),
        reference=selection.reference,
    )
    batcher.watch(lambda: pipeline.images)
    server = Server(pipeline, max_payload=settings.max_request_bytes)
    await server.listen(socket)
    _ready(selection, selected)
    measuring = asyncio.create_task(_improve(selection, batcher)) if measure else None
    await stop.wait()
    if measuring is not None:
        measuring.cancel()
    await server.drain(seconds=_DRAIN_SECONDS)
    log.info("stopped")
    logging.shutdown()
    os._exit(0)  # all that it held goes with the process; torch's own end takes seconds where cores are busy


async def _improve(selection: Selection, batcher: Batcher) -> None:
    """Find out what serves faster than the reference, and change over to it while requests are answered."""
    for pause in itertools.chain(_PAUSES, itertools.repeat(_PAUSES[-1])):
        await asyncio.sleep(pause)
        try:
            better = await asyncio.to_thread(selection.known) if await selection.measure() else None
        except Exception:  # the engine serves on with what it has
            log.exception("no faster runtime was found")
            continue
        if better is not None:
            batcher.use(better.computing)
            _ready(selection, better)
            return


def _ready(selection: Selection, selected: Selected) -> None:
    _say(state="ready", device=selection.device, runtime=selected.shown)
    log.info("ready", extra={"device": selection.device, "runtime": selected.shown["name"]})


def _refuse(reason: str, *, status: int) -> int:
    log.error(reason)
    _say(state="failed", reason=reason)
    return status


def _say(**fields: Any) -> None:  # noqa: ANN401 - anything that JSON can hold
    _SAID.write(orjson.dumps(fields) + b"\n")
    _SAID.flush()


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
