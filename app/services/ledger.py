"""The ledger as the event loop may use it: in threads, bounded in time, and failing fast while Redis is away."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
from redis import ConnectionError as RedisConnectionError
from redis import Redis, RedisError
from redis import TimeoutError as RedisTimeoutError
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.problems import UnavailableError
from jobs.answers import QueueFull
from jobs.ledger import Ledger

log = logging.getLogger(__name__)

_SOCKET_SECONDS = 0.5  # for one answer of Redis, the disk's part included; a refusal then comes within a second
_CALL_SECONDS = 0.8  # for one call of the ledger
LONG_SECONDS = 10.0  # for one that asks many questions
_FAIL_FAST_SECONDS = 0.3  # after a silence, whoever waits for a thread is told at once
_THREADS = 8  # more would wait for one another in Redis, where the waiting counts
_SEARCHES = 2  # at a time: they are long, and must not have the threads that short questions need
_FULL_SECONDS = 10  # after which a client may look whether jobs have ended
_READ_HINT = "Classification goes on meanwhile; ask again later."
_WRITE_HINT = (
    "Classification goes on meanwhile. Whether the change was written is not known: "
    "send the same request again, a POST with the same Idempotency-Key, and it counts once."
)

T = TypeVar("T")


def ledger_away(reason: str, *, hint: str = _READ_HINT) -> UnavailableError:
    return UnavailableError("ledger_unavailable", f"The job ledger cannot be reached: {reason}.", hint=hint)


def _connect(redis_url: str) -> Redis:
    """A client for requests. A broken connection is replaced at once, a silent one ends the call: a thread that hangs
    in it would be missing for everybody else.
    """
    return Redis.from_url(
        redis_url,
        decode_responses=True,
        socket_timeout=_SOCKET_SECONDS,
        socket_connect_timeout=_SOCKET_SECONDS,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        health_check_interval=0,  # a question before each question doubles what a silence costs
        client_name="resnetd-http",
    )


class AsyncLedger:
    """Runs each call of the ledger in a thread of its own few. Every method raises UnavailableError, in less than a
    second, where Redis does not answer.
    """

    def __init__(self, redis_url: str, *, most_unfinished: int | None = None) -> None:
        self._ledger = Ledger(_connect(redis_url), most_unfinished=most_unfinished)
        self._limiter = anyio.CapacityLimiter(_THREADS)
        self._searches = anyio.CapacityLimiter(_SEARCHES)
        self._away_until = 0.0

    async def read(self, call: Callable[[Ledger], T], *, seconds: float = _CALL_SECONDS) -> T:
        """A question."""
        return await self._run(call, seconds, _READ_HINT)

    async def search(self, call: Callable[[Ledger], T]) -> T:
        """Many questions: it takes longer when there are many jobs, and no longer when Redis is silent.

        `call` bounds its time itself. It keeps its place to its end, also when nobody waits for it any more: else those
        who ask and go would have threads without number at work.
        """
        place = object()
        await self._searches.acquire_on_behalf_of(place)
        asked = asyncio.create_task(self._answered(call, LONG_SECONDS, _READ_HINT, abandon=False))
        asked.add_done_callback(lambda _: self._searches.release_on_behalf_of(place))
        return await asyncio.shield(asked)

    async def write(self, call: Callable[[Ledger], T]) -> T:
        """A change. Unavailable may also mean: done, but not heard of; the problem's hint says so."""
        return await self._run(call, _CALL_SECONDS, _WRITE_HINT)

    async def check(self) -> str | None:
        """Why Redis is not usable, or None."""
        try:
            await self.read(lambda ledger: ledger.redis.ping())
        except UnavailableError as error:
            return error.detail
        return None

    async def worker_alive(self) -> bool:
        """Whether a Celery worker is connected: the only client that waits at the queues with BRPOP."""
        clients = await self.read(lambda ledger: ledger.redis.client_list())
        return any(client.get("cmd") == "brpop" for client in clients)

    async def _run(self, call: Callable[[Ledger], T], seconds: float, hint: str) -> T:
        """Waiting for a thread is not counted: under load it is no outage, and in an outage all are told at once."""
        async with self._limiter:
            return await self._answered(call, seconds, hint, abandon=True)

    async def _answered(self, call: Callable[[Ledger], T], seconds: float, hint: str, *, abandon: bool) -> T:
        if time.monotonic() < self._away_until:
            raise ledger_away("no answer a moment ago", hint=hint)
        try:
            with anyio.fail_after(seconds):
                return await anyio.to_thread.run_sync(
                    call, self._ledger, abandon_on_cancel=abandon, limiter=anyio.CapacityLimiter(1)
                )
        except RedisTimeoutError as error:
            self._away_until = time.monotonic() + _FAIL_FAST_SECONDS
            raise ledger_away("it does not answer", hint=hint) from error
        except TimeoutError as error:
            raise ledger_away(f"no answer within {seconds:g} s", hint=hint) from error
        except QueueFull as error:
            raise UnavailableError(
                "queue_full",
                "As many jobs as this server may have at once have not ended.",
                hint="Wait until some have, or cancel some: GET /v1/jobs?state=queued,paused lists those that wait. "
                "RESNETD_MAX_UNFINISHED_JOBS says how many there may be.",
                retry_after=_FULL_SECONDS,
            ) from error
        except RedisError as error:
            log.warning("Redis is away", extra={"reason": str(error)})
            raise ledger_away(type(error).__name__, hint=hint) from error

    def close(self) -> None:
        self._ledger.redis.close()
