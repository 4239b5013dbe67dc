"""The ledger as the event loop may use it: in threads, with a time limit, and failing fast while Redis is away."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
from redis import RedisError

from app.problems import UnavailableError
from jobs.ledger import Ledger
from jobs.redis import connect

log = logging.getLogger(__name__)

READ_SECONDS = 1.5
WRITE_SECONDS = 10.0  # a write waits for the disk
_FAIL_FAST_SECONDS = 1.0  # after a timeout, others are told at once instead of waiting as long
_THREADS = 16

T = TypeVar("T")


def redis_away(reason: str) -> UnavailableError:
    return UnavailableError(
        "redis_unavailable",
        f"The job ledger cannot be reached: {reason}.",
        hint="Classification goes on meanwhile; repeat this request later, with its Idempotency-Key.",
    )


class AsyncLedger:
    """Runs one call of the ledger at a time in a thread. Every method raises UnavailableError where Redis is away."""

    def __init__(self, redis_url: str) -> None:
        self._ledger = Ledger(connect(redis_url))
        self._limiter = anyio.CapacityLimiter(_THREADS)
        self._away_until = 0.0

    async def read(self, call: Callable[[Ledger], T]) -> T:
        """A short question; tried nothing where the last one timed out a moment ago."""
        if time.monotonic() < self._away_until:
            raise redis_away("no answer a moment ago")
        return await self._run(call, READ_SECONDS)

    async def write(self, call: Callable[[Ledger], T]) -> T:
        """A change, after a look whether Redis answers at all. Unavailable may also mean: done, but not heard of."""
        await self.read(lambda ledger: ledger.redis.ping())
        return await self._run(call, WRITE_SECONDS)

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

    async def _run(self, call: Callable[[Ledger], T], seconds: float) -> T:
        try:
            with anyio.fail_after(seconds):
                return await anyio.to_thread.run_sync(call, self._ledger, abandon_on_cancel=True, limiter=self._limiter)
        except TimeoutError as error:
            self._away_until = time.monotonic() + _FAIL_FAST_SECONDS
            raise redis_away(f"no answer within {seconds:g} s") from error
        except RedisError as error:
            log.warning("Redis is away", extra={"reason": str(error)})
            raise redis_away(type(error).__name__) from error

    def close(self) -> None:
        self._ledger.redis.close()
