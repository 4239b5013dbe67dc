"""The doorbell and the reconciler of this process. Celery, which is slow to import, is imported by the first use, in a
thread.
"""

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING

import anyio.to_thread

from jobs.ledger import Ledger
from jobs.model import Lane
from jobs.redis import connect
from store.layout import Layout

if TYPE_CHECKING:
    from jobs.doorbell import Doorbell

RECONCILE_SECONDS = 2.0


class Bells:
    def __init__(self, redis_url: str, layout: Layout) -> None:
        self._redis_url = redis_url
        self._layout = layout

    @cached_property
    def _doorbell(self) -> "Doorbell":
        from jobs.doorbell import Doorbell  # noqa: PLC0415 - see above

        return Doorbell(self._redis_url)

    @cached_property
    def _ledger(self) -> Ledger:
        return Ledger(connect(self._redis_url))

    def ring(self, lane: Lane) -> None:
        """Blocks while Redis does not answer; a bell that is lost is rung again by a reconciler."""
        self._doorbell.ring(lane)

    async def reconcile_forever(self) -> None:
        while True:
            await anyio.to_thread.run_sync(self._reconcile, abandon_on_cancel=True)
            await asyncio.sleep(RECONCILE_SECONDS)

    def _reconcile(self) -> None:
        from jobs.reconciler import reconcile  # noqa: PLC0415 - see above

        reconcile(self._ledger, self._doorbell, self._layout)
