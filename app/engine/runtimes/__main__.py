"""`python -m app.engine.runtimes FOLDER --model NAME --version N --device D`: finds out what is fastest here.

A process of its own, started by the engine that serves already: what it builds and measures takes a minute of all
cores, much memory, and libraries that may crash. It runs at low priority, one at a time on a machine's data directory,
and leaves a record under `<data>/runtimes/`. Exit status 0: there is one.

With `--like`, in seconds and before anything serves: what was measured for another version with the same network.
"""

import argparse
import fcntl
import logging
import os
import sys
import threading
from pathlib import Path

from app.engine.runtimes.records import Cache, cores, kind_of, sweep, without_int8
from app.engine.runtimes.tuning import take_over, tune
from models.runtime import Runtime, load
from store import logs
from store.layout import Layout
from store.process import attach_to_parent
from store.settings import Settings

log = logging.getLogger("app.engine.runtimes")

_NICE = 10
NOTHING_ALIKE = 4  # exit status: with `--like` there is no record
_SECONDS = 600.0  # for all of it; what has no record by then is done without


def main() -> int:
    arguments = _arguments()
    attach_to_parent()
    os.umask(0o077)
    if not arguments.like:
        os.nice(_NICE)
    os.dup2(2, 1)  # libraries draw progress bars
    settings = Settings()
    logs.configure(settings.log_level, part=f"tuning {arguments.model}@{arguments.version}")
    layout = Layout(settings.data).create()
    with (layout.locks / "tuning.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if arguments.like else 0))
        except BlockingIOError:
            return NOTHING_ALIKE  # an engine waits for this, and should not for another model's minutes
        late = threading.Timer(_SECONDS, _give_up)
        late.daemon = True
        late.start()
        return _take_over(arguments, settings, layout) if arguments.like else _measure(arguments, settings, layout)


def _measure(arguments: argparse.Namespace, settings: Settings, layout: Layout) -> int:
    reference, cache = _loaded(arguments, layout)
    max_batch = settings.batch_limits(arguments.model).images
    known = cache.read(
        weights_sha256=reference.manifest.weights_sha256,
        precision=settings.precision,
        runtime=settings.runtime,
        max_batch=max_batch,
    )
    if known and known.like is None and not arguments.again:
        return 0
    for record in tune(
        reference,
        arguments.folder,
        cache,
        precision=settings.precision,
        runtime=settings.runtime,
        max_batch=max_batch,
        cores=cores(),
    ):
        cache.write(record)
    _sweep(layout, cache)
    return 0


def _take_over(arguments: argparse.Namespace, settings: Settings, layout: Layout) -> int:
    reference, cache = _loaded(arguments, layout)
    precision, runtime = without_int8(settings.precision), settings.runtime
    max_batch = settings.batch_limits(arguments.model).images
    kin = cache.kin(network=kind_of(reference.manifest), precision=precision, runtime=runtime, max_batch=max_batch)
    record = kin and take_over(
        reference, arguments.folder, cache, kin, precision=precision, runtime=runtime, cores=cores()
    )
    if record is None:
        return NOTHING_ALIKE
    cache.write(record)
    _sweep(layout, cache)
    return 0


def _sweep(layout: Layout, cache: Cache) -> None:
    sweep(layout.runtimes, layout.models, keep=cache.name)
    cache.sweep_former()


def _loaded(arguments: argparse.Namespace, layout: Layout) -> tuple[Runtime, Cache]:
    reference = load(arguments.folder, arguments.device)
    device = str(reference.device)
    model, version = arguments.model, arguments.version
    return reference, Cache(layout.runtimes, model=model, version=version, device=device, cores=cores())


def _give_up() -> None:
    log.error("no time is left", extra={"seconds": _SECONDS})
    os._exit(1)  # a thread cannot end the library call that the main thread hangs in


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app.engine.runtimes", description="Measure what serves a model.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--version", type=int, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--like", action="store_true", help="take over what is known of another version")
    parser.add_argument("--again", action="store_true", help="also where there is a record already")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
