"""What is ready, part by part. Ready means: an engine has really answered just now.

Without Redis or a worker the server still classifies, so it stays ready and says `degraded`: taking it out of a load
balancer would turn a job outage into an outage of everything.
"""

import asyncio
from typing import Any

from app.drain import Drain
from app.inference.client import Engines
from app.problems import UnavailableError
from app.services.ledger import AsyncLedger


class Readiness:
    def __init__(self, engines: Engines, ledger: AsyncLedger, drain: Drain) -> None:
        self._drain = drain
        self._engines = engines
        self._ledger = ledger

    async def look(self) -> tuple[bool, dict[str, Any]]:
        """Whether this server classifies, and `{"status", "not_ready", "parts"}`."""
        health, ledger = await asyncio.gather(self._engines.health(), self._ledger.check())
        worker = await self._worker() if ledger is None else "unknown while the ledger is away"
        leaving = "it was told to stop, and answers what still comes" if self._drain.leaving else None
        parts = {
            "server": _part(leaving),
            "engine": _part(health.reason if not health.ready else None, model=health.model, version=health.version),
            "ledger": _part(ledger),
            "worker": _part(worker),
        }
        not_ready = [name for name, part in parts.items() if not part["ready"]]
        ready = health.ready and leaving is None
        status = "not_ready" if not ready else "degraded" if not_ready else "ready"
        return ready, {"status": status, "not_ready": not_ready, "parts": parts}

    async def _worker(self) -> str | None:
        try:
            alive = await self._ledger.worker_alive()
        except UnavailableError as error:
            return error.detail
        return None if alive else "no worker is connected: jobs wait until one is"


def _part(reason: str | None, **more: object) -> dict[str, Any]:
    return {"ready": reason is None, "reason": reason, **more}
