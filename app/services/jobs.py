"""Jobs as clients see them: looked at, listed, waited for, followed."""

import time
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing, suppress
from dataclasses import dataclass

import anyio
import anyio.to_thread

from app.problems import NotFoundError, UnavailableError
from app.services import deletion
from app.services.feeds import Closing, Feeds
from app.services.ledger import LONG_SECONDS, AsyncLedger
from app.services.pages import bad_cursor
from jobs import archive
from jobs.answers import JobNotFound
from jobs.ledger import Ledger
from jobs.model import TERMINAL, Event, Job, Kind, Priority, State
from jobs.records import ends
from store.layout import Layout

_PAGE = 500  # events read at once, where all are wanted
_DISK_THREADS = 2  # for pages that are read from disk: each opens the record of every job
_SEARCH_SECONDS = 3.0  # for a page of a list that is filtered; what was found by then is the page


@dataclass(frozen=True)
class Placed:
    """A job, and its place in its lane's queue while it is queued (1 = the next)."""

    job: Job
    position: int | None = None


def placed(ledger: Ledger, job_id: str) -> Placed:
    """For threads. Raises JobNotFound."""
    job = ledger.get(job_id)
    return Placed(job, ledger.position(job_id) if job.state is State.QUEUED else None)


class Jobs:
    def __init__(self, ledger: AsyncLedger, layout: Layout, redis_url: str) -> None:
        self._ledger = ledger
        self._layout = layout
        self._disk = anyio.CapacityLimiter(_DISK_THREADS)
        self.feeds = Feeds(redis_url, self._backlog)

    async def get(self, job_id: str) -> Placed:
        """A job, one that has ended also without Redis. Raises NotFoundError, UnavailableError."""

        def read(ledger: Ledger) -> Placed:
            if deletion.is_marked(self._layout, job_id):
                raise JobNotFound(job_id)
            return placed(ledger, job_id)

        try:
            return await self._ledger.read(read)
        except JobNotFound as error:
            try:
                return await self._archived(job_id)
            except JobNotFound:
                raise unknown(job_id) from error
        except UnavailableError:
            try:
                return await self._archived(job_id)
            except JobNotFound:
                pass
            raise

    async def state(self, job_id: str) -> State:
        return (await self.get(job_id)).job.state

    async def wait(self, job_id: str, seconds: float) -> Placed:
        """The job as soon as it has ended, at the latest after `seconds`."""
        found = await self.get(job_id)
        if found.job.ended or seconds <= 0:
            return found
        # Its last event is still to come; a minute spares the history and forgives clocks that differ.
        lately = f"{max(0, int((time.time() - 60) * 1000))}-0"
        with anyio.move_on_after(seconds), suppress(Closing):
            async with aclosing(self.feeds.follow(job_id, after=lately)) as events:
                async for each in events:
                    if each is not None and ends(each.type):
                        break
        return await self.get(job_id)

    async def page(
        self,
        *,
        limit: int,
        after: str | None,
        states: Collection[State] | None,
        kinds: Collection[Kind] | None,
        priorities: Collection[Priority] | None,
        dataset: str | None,
        model: str | None,
    ) -> tuple[list[Placed], str | None]:
        """Jobs, newest first, and the `after` of what follows, None at the end. Raises InvalidError, UnavailableError.

        Of a list that is filtered a page may hold less than `limit`, and nothing, although others follow.
        """
        filtered = any(each is not None for each in (kinds, priorities, dataset, model))
        wanted = self._about(dataset, model)

        def read(ledger: Ledger) -> tuple[list[Placed], str | None]:
            until = time.monotonic() + _SEARCH_SECONDS
            found, following = ledger.page(
                limit=limit, after=after, state=states, kind=kinds, priority=priorities, only=wanted, until=until
            )
            places = ledger.positions([job.id for job in found])
            return [Placed(job, places.get(job.id)) for job in found], following

        try:
            if filtered:
                return await self._ledger.search(read)
            return await self._ledger.read(read, seconds=LONG_SECONDS)
        except JobNotFound as error:
            raise bad_cursor(str(after)) from error

    async def archived_page(
        self,
        *,
        limit: int,
        after: str | None,
        states: Collection[State] | None,
        kinds: Collection[Kind] | None,
        priorities: Collection[Priority] | None,
        dataset: str | None,
        model: str | None,
    ) -> tuple[list[Placed], str | None]:
        """As `page`, of every ended job that is on disk, whether or not Redis still has it: it is not asked."""
        wanted = self._about(dataset, model)

        def only(job: Job) -> bool:
            among = ((job.state, states), (job.kind, kinds), (job.priority, priorities))
            return all(these is None or each in these for each, these in among) and wanted(job)

        def read() -> tuple[list[Placed], str | None]:
            found, following = archive.page(self._layout, limit=limit, after=after, only=only, seconds=_SEARCH_SECONDS)
            return [Placed(job) for job in found], following

        try:
            return await anyio.to_thread.run_sync(read, limiter=self._disk)
        except JobNotFound as error:
            raise bad_cursor(str(after)) from error

    async def events(self, job_id: str, *, after: str, limit: int) -> tuple[list[Event], bool]:
        """A page of the history, oldest first, and whether there are more."""
        events, more, _ = await self._backlog(job_id, after=after, limit=limit)
        return events, more

    def follow(self, job_id: str, *, after: str) -> AsyncGenerator[Event | None, None]:
        """The history as it happens, to the job's end."""
        return self.feeds.follow(job_id, after=after)

    async def stored(self, job_id: str, *, after: str) -> AsyncGenerator[Event | None, None]:
        """The history as far as it goes now. Raises Closing at an end that comes too early: Redis has gone away."""
        more = True
        while more:
            try:
                events, more = await self.events(job_id, after=after, limit=_PAGE)
            except UnavailableError as error:
                raise Closing from error
            for each in events:
                after = each.id
                yield each

    async def counts(self) -> dict[State, int]:
        return await self._ledger.read(lambda ledger: ledger.count())

    def _about(self, dataset: str | None, model: str | None) -> Callable[[Job], bool]:
        """Whether a job is about these, each where it is named, and its deletion has not begun."""

        def wanted(job: Job) -> bool:
            if dataset is not None and job.spec.get("dataset") != dataset:
                return False
            if model is not None and model not in models_of(job):
                return False
            return not (job.ended and deletion.is_marked(self._layout, job.id))

        return wanted

    async def _archived(self, job_id: str) -> Placed:
        def read() -> Placed:
            if deletion.is_marked(self._layout, job_id):
                raise JobNotFound(job_id)
            return Placed(archive.archived_job(self._layout, job_id))

        return await anyio.to_thread.run_sync(read)

    async def _backlog(self, job_id: str, *, after: str, limit: int) -> tuple[list[Event], bool, bool]:
        job = (await self.get(job_id)).job  # before the events: what it had written when it ended is then on the page
        try:
            events, more = await self._ledger.read(
                lambda ledger: archive.history(ledger, self._layout, job_id, after=after, limit=limit)
            )
        except (JobNotFound, UnavailableError):
            if not job.ended:
                raise
            events, more = await anyio.to_thread.run_sync(
                lambda: archive.archived_events(self._layout, job_id, after=after, limit=limit)
            )
        return events, more, job.ended


def models_of(job: Job) -> frozenset[str]:
    """The model that a job measures, exports or makes, as `name` and, where that is known, as `name@3`."""
    made = job.result or {}
    refs = [job.spec.get("model"), job.spec.get("register_as")]
    if made.get("model") and made.get("version"):
        refs.append(f"{made['model']}@{made['version']}")
    return frozenset(name for ref in refs if ref for name in (ref, ref.partition("@")[0]))


def under_way(ledger: Ledger, wanted: Callable[[Job], bool]) -> Job | None:
    """A job that has not ended and for which `wanted` holds, None where there is none. For `AsyncLedger.search`."""
    states = frozenset(State) - TERMINAL
    after: str | None = None
    while True:
        jobs, after = ledger.page(limit=200, after=after, state=states)
        for job in jobs:
            if wanted(job):
                return job
        if after is None:
            return None


def unknown(job_id: str) -> NotFoundError:
    return NotFoundError("job_not_found", f"There is no job {job_id[:80]!r}.", hint="GET /v1/jobs lists them.")
