"""All figures for Prometheus: what the HTTP processes counted, and what engines and the ledger tell when asked."""

import asyncio

import anyio.to_thread

from app.inference.client import Engines
from app.metrics import Metrics
from app.problems import UnavailableError
from app.services.jobs import Jobs


class Figures:
    def __init__(self, metrics: Metrics, engines: Engines, jobs: Jobs) -> None:
        self._metrics = metrics
        self._engines = engines
        self._jobs = jobs

    async def render(self) -> bytes:
        """Prometheus's text format. Jobs are left out while the ledger is away: unknown is not zero."""
        jobs, engines = await asyncio.gather(self._count_jobs(), self._engines.figures())
        self._metrics.streams.set(self._jobs.feeds.followers)
        return await anyio.to_thread.run_sync(lambda: self._metrics.render(jobs=jobs, engines=engines))

    async def _count_jobs(self) -> dict[str, int]:
        try:
            return {state.value: count for state, count in (await self._jobs.counts()).items()}
        except UnavailableError:
            return {}
