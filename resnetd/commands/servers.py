"""`resnetd up`, `serve`, `work`: the commands that start processes."""

import typer

from resnetd.commands.options import with_settings
from resnetd.errors import CannotStart, Refused
from store.settings import Settings


def up(settings: Settings) -> None:
    """Start everything on this machine, in the foreground: Redis, the worker, the engines and the HTTP server."""
    _start("up", settings)


def serve(settings: Settings) -> None:
    """Start the HTTP server and its engines alone; the ledger is at REDIS_URL."""
    _start("serve", settings)


def work(settings: Settings) -> None:
    """Start one worker alone, for this machine's device; the ledger is at REDIS_URL."""
    _start("work", settings)


def _start(what: str, settings: Settings) -> None:
    from resnetd import up as starting  # noqa: PLC0415 - only these commands need a Redis client

    try:
        getattr(starting, what)(settings)
    except CannotStart as error:
        raise Refused(str(error)) from error


def register(app: typer.Typer) -> None:
    for command in (up, serve, work):
        app.command(command.__name__, rich_help_panel="Start")(with_settings(command))
