"""`python -m app [--fd N]`: one HTTP process under uvicorn. `--fd` is a listening socket of the parent's."""

import argparse
import logging
import math
import os
import signal
import sys
import time
from types import FrameType

import uvicorn

from app.main import create_app
from app.protocol import HttpProtocol
from app.state import State
from store import collector
from store.keys import list_keys
from store.layout import Layout
from store.logs import configure
from store.loopback import is_loopback
from store.open_files import raise_open_files
from store.process import attach_to_parent
from store.settings import Settings

log = logging.getLogger("resnetd.http")

BACKLOG = 2048
OTHER_FILES = 200  # beside a connection for each request: idle clients, event streams, Redis, engines, logs


class Server(uvicorn.Server):
    """Leaves in good order when it is told to stop.

    Event streams end at once: their clients come back with their last id. /readyz says 503, and while somebody may not
    know it yet requests are still answered, each with `Connection: close`. Then requests under way have their time. A
    second signal, or SIGINT, which is a person's, leaves the waiting out.
    """

    def __init__(self, config: uvicorn.Config, state: State, *, delay: float) -> None:
        super().__init__(config)
        self._state = state
        self._delay = delay
        self._leave_at = math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        drain = self._state.drain
        waits = sig == signal.SIGTERM and not drain.leaving and drain.lately(self._delay)
        drain.leaving = True
        self._state.jobs.feeds.close()
        if waits:
            self._leave_at = time.monotonic() + self._delay
            for connection in self.server_state.connections:
                if isinstance(connection, HttpProtocol):
                    connection.close_with_answer()
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        self.should_exit = self.should_exit or time.monotonic() >= self._leave_at
        return await super().on_tick(counter)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m app", description=__doc__)
    parser.add_argument(
        "--fd", type=int, help="a listening socket to serve on, instead of RESNETD_HOST and RESNETD_PORT"
    )
    arguments = parser.parse_args()
    attach_to_parent()
    os.umask(0o077)
    settings = Settings()
    configure(settings.log_level, part="http")
    files = raise_open_files()
    if files < settings.max_requests + OTHER_FILES:
        log.warning(
            "too few files may be open: connections may be left unanswered before RESNETD_MAX_REQUESTS is reached",
            extra={"open_files": files, "needed": settings.max_requests + OTHER_FILES},
        )
    if not is_loopback(settings.host) and not list_keys(Layout(settings.data)):
        log.error(
            "refusing to start: the address is not loopback and there is no API key; "
            "make one with `resnetd keys create --scope predict|train|admin`",
            extra={"host": settings.host},
        )
        return 2
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        fd=arguments.fd,
        http=HttpProtocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        log_level=settings.log_level.lower(),
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
    )
    server = Server(config, app.state.edge, delay=settings.drain_delay_seconds)

    def leave(*_: object) -> None:
        # uvicorn raises the signal again once it has shut down in good order: that is no reason to die of it.
        if not server.should_exit:
            raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    collector.settle()
    server.run()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
