"""What goes on in an HTTP process while it serves."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from app.metrics import Metrics
from app.problems import ProblemError, UnavailableError
from app.services.adoptions import Adoptions
from app.services.dataset_uploads import DatasetUploads
from app.services.deletion import Deletion
from app.services.feeds import Feeds
from app.services.ledger import AsyncLedger
from app.state import State
from jobs.redis_version import warning

log = logging.getLogger(__name__)

_RECOVERY_SECONDS = 30.0
_RETRY_SECONDS = 2.0  # while Redis or the disk refuses
_DELETION_SECONDS = 60.0
_TELL_SECONDS = 1.0


@contextlib.asynccontextmanager
async def running(state: State) -> AsyncIterator[None]:
    """All of it, until the context ends; then the connections to engines and to Redis are closed."""
    async with state.jobs.feeds.running(), state.webhooks.running():
        tasks = [
            asyncio.create_task(_recover(state.uploads, state.adoptions), name="recover-uploads"),
            asyncio.create_task(state.bells.ring_forever(), name="doorbell"),
            asyncio.create_task(state.bells.reconcile_forever(), name="reconciler"),
            asyncio.create_task(_look_at_redis(state.ledger), name="look-at-redis"),
            asyncio.create_task(_complete_deletions(state.deletion), name="complete-deletions"),
            asyncio.create_task(_tell_streams(state.jobs.feeds, state.metrics), name="tell-streams"),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await state.engines.close()
            state.ledger.close()


async def _recover(uploads: DatasetUploads, adoptions: Adoptions) -> None:
    """At the start and now and then: other processes die, and Redis goes away between two steps of an upload."""
    while True:
        pause = _RECOVERY_SECONDS
        try:
            await uploads.sweep()
            await uploads.recover()
            await adoptions.recover()
        except (ProblemError, OSError) as error:
            log.warning("unfinished uploads are looked at again", extra={"reason": str(error)})
            pause = _RETRY_SECONDS
        except Exception:  # one that nobody thought of is not to end this for all that come
            log.exception("unfinished uploads are looked at again")
        await asyncio.sleep(pause)


async def _look_at_redis(ledger: AsyncLedger) -> None:
    """Once: whether its version is known to be unsafe."""
    while True:
        try:
            told = warning(await ledger.read(lambda ledger: ledger.redis.info("server")))
        except UnavailableError:
            await asyncio.sleep(_RETRY_SECONDS)
            continue
        if told is not None:
            log.warning(told)
        return


async def _complete_deletions(deletion: Deletion) -> None:
    while True:
        try:
            await deletion.complete()
        except OSError as error:
            log.warning("deletions are looked at again", extra={"reason": str(error)})
        except Exception:
            log.exception("deletions are looked at again")
        await asyncio.sleep(_DELETION_SECONDS)


async def _tell_streams(feeds: Feeds, metrics: Metrics) -> None:
    """How many there are, for whichever process is asked for all metrics."""
    while True:
        metrics.streams.set(feeds.followers)
        await asyncio.sleep(_TELL_SECONDS)
