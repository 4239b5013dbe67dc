"""Everything that one HTTP process holds: built once, at start, and handed to the routes."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from app.auth import Gate, is_loopback
from app.inference.client import Engines
from app.metrics import Metrics
from app.problems import ProblemError
from app.services.bells import Bells
from app.services.classification import Classification
from app.services.datasets import Datasets
from app.services.jobs import Jobs
from app.services.ledger import AsyncLedger
from app.services.models import Models
from app.services.readiness import Readiness
from app.services.uploads import Uploads
from jobs.redis import url
from models.catalog import Catalog
from store.keys import KeyRing
from store.layout import Layout
from store.settings import Settings

log = logging.getLogger(__name__)

_RECOVERY_RETRY_SECONDS = 2.0


@dataclass(frozen=True)
class State:
    settings: Settings
    layout: Layout
    metrics: Metrics
    gate: Gate
    engines: Engines
    ledger: AsyncLedger
    classification: Classification
    datasets: Datasets
    uploads: Uploads
    jobs: Jobs
    models: Models
    readiness: Readiness
    bells: Bells

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What goes on in the background while the server serves."""
        async with self.jobs.feeds.running():
            tasks = [
                asyncio.create_task(self._recover(), name="recover-uploads"),
                asyncio.create_task(self.bells.reconcile_forever(), name="reconciler"),
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self.engines.close()
                self.ledger.close()

    async def _recover(self) -> None:
        while True:
            try:
                await self.uploads.recover(self.datasets)
            except (ProblemError, OSError) as error:
                log.warning("unfinished uploads are looked at again", extra={"reason": str(error)})
                await asyncio.sleep(_RECOVERY_RETRY_SECONDS)
            else:
                return


def build(settings: Settings, *, engines: Engines | None = None) -> State:
    """Everything from the settings. `engines`: another way to reach engines than through this machine's fleet."""
    layout = Layout(settings.data).create()
    redis_url = url(settings, layout)
    metrics = Metrics()
    engines = engines or Engines(layout, settings)
    ledger = AsyncLedger(redis_url)
    bells = Bells(redis_url, layout)
    datasets = Datasets(ledger, layout)
    jobs = Jobs(ledger, layout, datasets, redis_url, ring=bells.ring)
    return State(
        settings=settings,
        layout=layout,
        metrics=metrics,
        gate=Gate(KeyRing(layout), keyless=is_loopback(settings.host)),
        engines=engines,
        ledger=ledger,
        classification=Classification(engines, metrics, timeout=settings.request_timeout),
        datasets=datasets,
        uploads=Uploads(ledger, layout, jobs),
        jobs=jobs,
        models=Models(Catalog(layout.models)),
        readiness=Readiness(engines, ledger),
        bells=bells,
    )
