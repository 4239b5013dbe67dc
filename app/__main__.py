"""`python -m app [--fd N]`: one HTTP process under uvicorn. `--fd` is a listening socket of the parent's."""

import argparse
import logging
import signal
import sys
from types import FrameType

import uvicorn

from app.auth import is_loopback
from app.main import create_app
from app.protocol import HttpProtocol
from app.state import State
from store.keys import list_keys
from store.layout import Layout
from store.logs import configure
from store.process import attach_to_parent
from store.settings import Settings

log = logging.getLogger("resnetd.http")

GRACE_SECONDS = 8  # requests under way when the process is told to stop
BACKLOG = 2048


class Server(uvicorn.Server):
    """Ends event streams as soon as it is told to stop: their clients come back with their last id."""

    def __init__(self, config: uvicorn.Config, state: State) -> None:
        super().__init__(config)
        self._state = state

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._state.jobs.feeds.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m app", description=__doc__)
    parser.add_argument(
        "--fd", type=int, help="a listening socket to serve on, instead of RESNETD_HOST and RESNETD_PORT"
    )
    arguments = parser.parse_args()
    attach_to_parent()
    settings = Settings()
    configure(settings.log_level, part="http")
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
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = Server(config, app.state.edge)

    def leave(*_: object) -> None:
        # uvicorn raises the signal again once it has shut down in good order: that is no reason to die of it.
        if not server.should_exit:
            raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    server.run()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
