"""`python -m app.fleet`: starts and watches the engines of one data directory. Settings come from the environment."""

import asyncio
import fcntl
import logging
import os
import signal
import sys

from app.fleet.again import load_again
from app.fleet.fleet import Fleet
from app.fleet.server import listen
from models.catalog import Catalog
from store import logs
from store.layout import Layout
from store.process import attach_to_parent
from store.settings import Settings

log = logging.getLogger("app.fleet")


def main() -> int:
    attach_to_parent()
    os.umask(0o077)
    settings = Settings()
    logs.configure(settings.log_level, part="fleet")
    layout = Layout(settings.data).create()
    with (layout.locks / "fleet.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.error("another fleet serves this data directory", extra={"data": str(layout.root)})  # noqa: TRY400
            return 1
        _seed(Catalog(layout.models))
        asyncio.run(_serve(layout, settings))
    return 0


def _seed(catalog: Catalog) -> None:
    """Give a fresh data directory the starter models. Models that are there are served also where this fails."""
    try:
        for name in catalog.seed():
            log.info("a starter model was added", extra={"model": name})
    except (OSError, ValueError):
        log.exception("the starter models could not be added")


async def _serve(layout: Layout, settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Of a fleet that was killed. Its routes stay until they are written anew: they tell which version an alias serves.
    for stale in (*layout.run.glob("engine-*.sock"), layout.fleet_socket):
        stale.unlink(missing_ok=True)
    fleet = Fleet(layout, settings)
    running = asyncio.create_task(fleet.run())
    loading = asyncio.create_task(load_again(fleet))
    server = await listen(fleet, layout.fleet_socket)
    log.info("the fleet runs", extra={"data": str(layout.root), "default": settings.model})
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if running.done():
            running.result()  # raises: whoever started the fleet starts it again
    finally:
        running.cancel()
        loading.cancel()
        server.close()
        await fleet.stop()
        layout.fleet_socket.unlink(missing_ok=True)
        log.info("the fleet stopped")


if __name__ == "__main__":
    sys.exit(main())
