"""`resnetd up`, `serve` and `work`: which parts run, and with what."""

import fcntl
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
from redis import Redis, RedisError

from resnetd import embedded_redis
from resnetd.announcement import announcement
from resnetd.errors import CannotStart
from resnetd.listener import address_of, listen
from resnetd.metrics_folder import counting
from resnetd.parts import REDIS_STOP_SECONDS, Part, Parts
from store import redis_account
from store.layout import Layout
from store.logs import configure
from store.open_files import raise_open_files
from store.settings import Settings, unknown_variables

log = logging.getLogger(__name__)

#: From the signal until the last part is killed that still lives; what is killed takes a moment, and 15 s are promised.
UP_STOP_SECONDS = 13.5
UP_DRAIN_SECONDS = 8.0  # a person who pressed Ctrl-C waits; what the last seconds computed is computed again
UP_DRAIN_DELAY = 2.0
UP_ENGINES_SECONDS, UP_FLEET_SECONDS = 1.5, 2.5  # nobody asks engines any more when they are told to stop
WORKER_STOP_SECONDS = 3.0  # from the end of its jobs to its own
HTTP_STOP_SECONDS = 1.5  # from the end of its requests to its own


def up(settings: Settings) -> None:
    """Everything on this machine, in the foreground, until SIGINT or SIGTERM."""
    settings = _hurried(settings)
    layout = _prepare(settings)
    with _alone(layout), listen(settings, layout) as listener, counting(layout) as metrics:
        redis = [] if settings.redis_url else [_redis(layout)]
        environment = _environment(settings, layout)
        parts = [
            *redis,
            *serving(settings, listener, {**environment, **metrics}, in_a_hurry=True),
            worker(settings, environment),
        ]
        server = redis[0].command[0] if redis else None
        announce = partial(_announce, address_of(listener), settings, layout, redis_server=server)
        Parts(parts, seconds=UP_STOP_SECONDS).run(announce=announce)


def serve(settings: Settings) -> None:
    """The HTTP server and the engines; the ledger is at REDIS_URL, or where `resnetd up` has its embedded Redis."""
    layout = _prepare(settings)
    with listen(settings, layout) as listener, counting(layout) as metrics:
        environment = {**_environment(settings, layout), **metrics}
        Parts(serving(settings, listener, environment)).run(announce=lambda: True)


def work(settings: Settings) -> None:
    """One worker for this machine's device."""
    layout = _prepare(settings)
    Parts([worker(settings, _environment(settings, layout))]).run(announce=lambda: True)


def _hurried(settings: Settings) -> Settings:
    """With no more time to drain than a person waits."""
    seconds, delay = min(settings.drain_seconds, UP_DRAIN_SECONDS), min(settings.drain_delay_seconds, UP_DRAIN_DELAY)
    return settings.model_copy(update={"drain_seconds": seconds, "drain_delay_seconds": delay})


@contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    """One `up` for each data directory: two embedded servers would write into one file. Raises CannotStart."""
    with _usable(layout.root):
        file = (layout.locks / "up.lock").open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"Another `resnetd up` runs on {layout.root}. Stop it, or give this one its own RESNETD_DATA."
            raise CannotStart(message) from error
        yield


def _prepare(settings: Settings) -> Layout:
    os.umask(0o077)  # the parts inherit it: what they write is for their user alone
    configure(settings.log_level, part="up")
    for name, near in unknown_variables(os.environ).items():
        log.warning(f"{name} is no setting and changes nothing" + (f": did you mean {near}?" if near else ""))
    raise_open_files()
    with _usable(settings.data):
        return Layout(settings.data).create()


@contextmanager
def _usable(data: Path) -> Iterator[None]:
    """Raises CannotStart where the disk refuses what is done to the data directory."""
    try:
        yield
    except OSError as error:
        message = f"The data directory {data} cannot be used: {error.strerror}. Set RESNETD_DATA."
        raise CannotStart(message) from error


def _environment(settings: Settings, layout: Layout) -> dict[str, str]:
    """The settings as the parts read them: paths whole, so that they mean the same everywhere."""
    values = {f"RESNETD_{name.upper()}": str(value) for name, value in settings if name != "redis_url"}
    # The embedded Redis's password stays in its file, where each part finds it.
    return {**values, "RESNETD_DATA": str(layout.root), "REDIS_URL": settings.redis_url or ""}


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _redis(layout: Layout) -> Part:
    with _usable(layout.root):
        client = Redis.from_url(redis_account.url(layout), socket_timeout=1.0)

    def ready() -> bool:
        try:
            return bool(client.ping())
        except RedisError:
            return False

    try:
        with _usable(layout.root):
            command = embedded_redis.command(layout)
    except embedded_redis.NoRedisServer as error:
        raise CannotStart(str(error)) from error
    words = partial(embedded_redis.last_words, layout)
    return Part("redis", command, ready=ready, stop_seconds=REDIS_STOP_SECONDS, last_words=words)


def serving(
    settings: Settings, listener: socket.socket, environment: dict[str, str], *, in_a_hurry: bool = False
) -> list[Part]:
    """The engines, and the HTTP processes that share them and one address."""
    fd = listener.fileno()

    def http(number: int) -> Part:
        return Part(
            f"http {number}",
            _python("app", "--fd", str(fd)),
            environment,
            pass_fds=[fd],
            leans_on=("fleet", "redis"),
            hurries=True,
            stop_seconds=settings.drain_delay_seconds + settings.drain_seconds + HTTP_STOP_SECONDS,
        )

    fleet = Part("fleet", _python("app.fleet"), environment)
    if in_a_hurry:
        engines = min(settings.drain_seconds, UP_ENGINES_SECONDS)
        fleet.environment = {**environment, "RESNETD_DRAIN_SECONDS": str(engines)}
        fleet.stop_seconds = UP_FLEET_SECONDS
    return [fleet, *(http(number) for number in range(1, settings.http_workers + 1))]


def worker(settings: Settings, environment: dict[str, str]) -> Part:
    patient = settings.drain_seconds + WORKER_STOP_SECONDS
    return Part("worker", _python("worker"), environment, leans_on=("redis",), stop_seconds=patient)


def _announce(address: str, settings: Settings, layout: Layout, *, redis_server: str | None) -> bool:
    """Once an engine has really answered, say what runs and what to try."""
    try:
        answer = httpx.get(f"{address}/readyz", timeout=2.0, trust_env=False)
    except httpx.HTTPError:
        return False
    if not answer.is_success:
        return False
    told = announcement(address, settings, layout, redis_server=redis_server, parts=answer.json()["parts"])
    print(told, flush=True)
    return True
