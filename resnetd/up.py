"""`resnetd up`, `serve` and `work`: which parts run, and with what."""

import fcntl
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from redis import Redis, RedisError

from resnetd import embedded_redis
from resnetd.errors import CannotStart
from resnetd.listener import address_of, listen
from resnetd.metrics_folder import counting
from resnetd.parts import REDIS_STOP_SECONDS, Part, Parts
from store import redis_account
from store.layout import Layout
from store.logs import configure
from store.settings import Settings

log = logging.getLogger(__name__)

UP_DRAIN_SECONDS = 8.0  # a person who pressed Ctrl-C waits; what the last seconds computed is computed again
WORKER_STOP_SECONDS = 3.0  # from the end of its jobs to its own
HTTP_STOP_SECONDS = 1.5  # from the end of its requests to its own


def up(settings: Settings) -> None:
    """Everything on this machine, in the foreground, until SIGINT or SIGTERM."""
    layout = _prepare(settings)
    with _alone(layout), listen(settings, layout) as listener, counting(layout) as metrics:
        parts = [] if settings.redis_url else [_redis(layout)]
        environment = _environment(settings, layout)
        parts += _serving(settings, listener, {**environment, **metrics}, patience=UP_DRAIN_SECONDS)
        parts += [_worker(settings, environment, patience=UP_DRAIN_SECONDS)]
        address = address_of(listener)
        Parts(parts).run(announce=lambda: _announce(address, settings, layout))


def serve(settings: Settings) -> None:
    """The HTTP server and the engines; the ledger is at REDIS_URL, or where `resnetd up` has its embedded Redis."""
    layout = _prepare(settings)
    with listen(settings, layout) as listener, counting(layout) as metrics:
        environment = {**_environment(settings, layout), **metrics}
        parts = _serving(settings, listener, environment, patience=settings.drain_seconds)
        Parts(parts).run(announce=lambda: True)


def work(settings: Settings) -> None:
    """One worker for this machine's device."""
    layout = _prepare(settings)
    worker = _worker(settings, _environment(settings, layout), patience=settings.drain_seconds)
    Parts([worker]).run(announce=lambda: True)


@contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    """One `up` for each data directory: two embedded servers would write into one file. Raises CannotStart."""
    with (layout.locks / "up.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"Another `resnetd up` runs on {layout.root}. Stop it, or give this one its own RESNETD_DATA."
            raise CannotStart(message) from error
        yield


def _prepare(settings: Settings) -> Layout:
    configure(settings.log_level, part="up")
    try:
        return Layout(settings.data).create()
    except OSError as error:
        message = f"The data directory {settings.data} cannot be used: {error.strerror}. Set RESNETD_DATA."
        raise CannotStart(message) from error


def _environment(settings: Settings, layout: Layout) -> dict[str, str]:
    """The settings as the parts read them: paths whole, so that they mean the same everywhere."""
    values = {f"RESNETD_{name.upper()}": str(value) for name, value in settings if name != "redis_url"}
    # The embedded Redis's password stays in its file, where each part finds it.
    return {**values, "RESNETD_DATA": str(layout.root), "REDIS_URL": settings.redis_url or ""}


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _redis(layout: Layout) -> Part:
    client = Redis.from_url(redis_account.url(layout), socket_timeout=1.0)

    def ready() -> bool:
        try:
            return bool(client.ping())
        except RedisError:
            return False

    try:
        return Part("redis", embedded_redis.command(layout), ready=ready, stop_seconds=REDIS_STOP_SECONDS)
    except embedded_redis.NoRedisServer as error:
        raise CannotStart(str(error)) from error


def _serving(
    settings: Settings, listener: socket.socket, environment: dict[str, str], *, patience: float
) -> list[Part]:
    """The engines, and the HTTP processes that share them and one address. `patience`: seconds that requests have."""
    fd, drain = listener.fileno(), min(settings.drain_seconds, patience)
    environment = {**environment, "RESNETD_DRAIN_SECONDS": str(drain)}

    def http(number: int) -> Part:
        return Part(
            f"http {number}",
            _python("app", "--fd", str(fd)),
            environment,
            pass_fds=[fd],
            leans_on=("fleet", "redis"),
            hurries=True,
            stop_seconds=settings.drain_delay + drain + HTTP_STOP_SECONDS,
        )

    fleet = Part("fleet", _python("app.fleet"), environment)
    return [fleet, *(http(number) for number in range(1, settings.http_workers + 1))]


def _worker(settings: Settings, environment: dict[str, str], *, patience: float) -> Part:
    """`patience`: how many seconds a job may take at most for its last checkpoint when the worker stops."""
    drain = min(settings.drain_seconds, patience)
    environment = {**environment, "RESNETD_DRAIN_SECONDS": str(drain)}
    patient = drain + WORKER_STOP_SECONDS
    return Part("worker", _python("worker"), environment, leans_on=("redis",), stop_seconds=patient)


def _announce(address: str, settings: Settings, layout: Layout) -> bool:
    """Once an engine has really answered, say what runs and what to try."""
    try:
        ready = httpx.get(f"{address}/readyz", timeout=2.0, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
    if ready:
        redis_at = "external" if settings.redis_url else "embedded"
        print(
            f"""
resnetd is ready at {address}   (data: {_short(layout.root)}, Redis: {redis_at}, model: {settings.model})

  curl -T cat.jpg {address}/v1/classify
  curl -T images.zip '{address}/v1/datasets?name=mine'
  curl {address}/v1/models

Every route: {address}/docs      Stop with Ctrl-C.
""",
            flush=True,
        )
    return ready


def _short(path: Path) -> str:
    here = Path(os.getcwd())  # noqa: PTH109 - Path.cwd() is the same call
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
