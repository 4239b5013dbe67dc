"""The doorbell and the reconciler of this process. Celery, which is slow to import, is imported by the first use, in a
thread.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from jobs.ledger import Ledger
from jobs.model import Lane
from jobs.redis import connect
from store.layout import Layout

if TYPE_CHECKING:
    from jobs.doorbell import Doorbell

log = logging.getLogger(__name__)

_RECONCILE_SECONDS = 2.0  # `jobs.reconciler.INTERVAL_SECONDS`, which comes with Celery
_ASK_SECONDS = 5.0
_WAITING = 64  # bells still to be rung; more say nothing that these do not


class Bells:
    def __init__(self, redis_url: str, layout: Layout, *, retention_seconds: float) -> None:
        self._redis_url = redis_url
        self._layout = layout
        self._retention_seconds = retention_seconds
        self._waiting: asyncio.Queue[Lane] = asyncio.Queue(_WAITING)

    @cached_property
    def _doorbell(self) -> "Doorbell":
        from jobs.doorbell import Doorbell  # noqa: PLC0415 - see above

        return Doorbell(self._redis_url)

    @cached_property
    def _ledger(self) -> Ledger:
        return Ledger(connect(self._redis_url))

    def ring(self, lane: Lane) -> None:
        """Returns at once: no answer waits for a broker. A bell that is lost is rung again by a reconciler."""
        with contextlib.suppress(asyncio.QueueFull):
            self._waiting.put_nowait(lane)

    async def ask_for_plan(self, plan_id: str) -> bool:
        """Tell a worker of a question; False where it is known within seconds that none will hear of it."""
        with anyio.move_on_after(_ASK_SECONDS):
            return await anyio.to_thread.run_sync(
                lambda: self._doorbell.ask_for_plan(plan_id), abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
            )
        return False

    async def ring_forever(self) -> None:
        """One thread rings, so that a broker that never answers holds no more than this one."""
        while True:
            lane = await self._waiting.get()
            await self._outside(partial(self._ring, lane))

    async def reconcile_forever(self) -> None:
        while True:
            await self._outside(self._reconcile)
            await asyncio.sleep(_RECONCILE_SECONDS)

    @staticmethod
    async def _outside(call: Callable[[], object]) -> None:
        """In a thread; whatever goes wrong there, the next round comes."""
        try:
            await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
        except Exception:
            log.exception("the doorbell or the reconciler failed; the next round comes")

    def _ring(self, lane: Lane) -> None:
        self._doorbell.ring(lane)

    def _reconcile(self) -> None:
        from jobs.reconciler import reconcile  # noqa: PLC0415 - see above

        reconcile(self._ledger, self._doorbell, self._layout, retention_seconds=self._retention_seconds)
