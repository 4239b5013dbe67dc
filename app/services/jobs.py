"""Jobs as clients see them: asked for, looked at, followed, cancelled."""

import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import anyio
import anyio.to_thread
import orjson

from app.problems import ConflictError, InvalidError, NotFoundError, UnavailableError, wrong
from app.services.datasets import Datasets, DatasetView, Status
from app.services.feeds import Feeds
from app.services.ledger import AsyncLedger
from jobs.archive import archived_events, archived_job
from jobs.ledger import IdempotencyConflict, JobNotFound, ends
from jobs.model import Event, Job, Kind, Lane, State
from models.recipes import RecipeError, resolve
from store.layout import Layout

log = logging.getLogger(__name__)


class Jobs:
    def __init__(
        self,
        ledger: AsyncLedger,
        layout: Layout,
        datasets: Datasets,
        redis_url: str,
        *,
        ring: Callable[[Lane], object],
    ) -> None:
        self._ledger = ledger
        self._layout = layout
        self._datasets = datasets
        self._ring = ring
        self.feeds = Feeds(redis_url, self._backlog)

    async def train(self, spec: dict[str, Any], *, idempotency_key: str | None) -> Job:
        """Write a training down and ring for it. Raises InvalidError, ConflictError, UnavailableError."""
        try:
            resolve(spec["recipe"], spec["overrides"])
        except RecipeError as error:
            code = "recipe_not_found" if error.field == "recipe" else "invalid_overrides"
            place = "#/" + error.field.replace(".", "/")
            raise InvalidError(code, f"{error}.", hint=error.hint, errors=wrong(place, str(error))) from error
        idempotency = _idempotency(idempotency_key, spec)
        with await self._datasets.kept(spec["dataset"]) as dataset:
            _check_ready(dataset)
            try:
                submitted = await self._ledger.write(
                    lambda ledger: ledger.submit(Kind.TRAIN, spec, idempotency=idempotency)
                )
            except IdempotencyConflict as error:
                raise idempotency_conflict() from error
        await self.ring(Lane.DEVICE)
        return await self.get(submitted.job_id)

    async def ring(self, lane: Lane) -> None:
        """Best effort, bounded in time: the reconciler rings again."""
        with anyio.move_on_after(2.0):
            await anyio.to_thread.run_sync(self._ring, lane, abandon_on_cancel=True)

    async def get(self, job_id: str) -> Job:
        """A job's record, of an ended one also without Redis. Raises NotFoundError, UnavailableError."""
        try:
            return await self._ledger.read(lambda ledger: ledger.get(job_id))
        except JobNotFound as error:
            try:
                return await self._archived(job_id)
            except JobNotFound:
                raise _unknown(job_id) from error
        except UnavailableError:
            try:
                return await self._archived(job_id)
            except JobNotFound:
                pass
            raise

    async def wait(self, job_id: str, seconds: float) -> Job:
        """The job as soon as it has ended, at the latest after `seconds`."""
        job = await self.get(job_id)
        if job.ended or seconds <= 0:
            return job
        # Its last event is still to come; a minute spares the history and forgives clocks that differ.
        lately = f"{max(0, int((time.time() - 60) * 1000))}-0"
        with anyio.move_on_after(seconds):
            async with aclosing(self.feeds.follow(job_id, after=lately)) as events:
                async for each in events:
                    if each is not None and ends(each.type):
                        break
        return await self.get(job_id)

    async def page(
        self, *, limit: int, after: str | None, state: State | None, kind: Kind | None
    ) -> tuple[list[Job], bool]:
        """Jobs, newest first, and whether there are more."""
        try:
            return await self._ledger.read(lambda ledger: ledger.page(limit=limit, after=after, state=state, kind=kind))
        except JobNotFound as error:
            raise bad_cursor(str(after)) from error

    async def cancel(self, job_id: str) -> Job:
        """Cancel, or go on cancelling. Raises ConflictError where it has ended otherwise or is about to."""
        try:
            outcome = await self._ledger.write(lambda ledger: ledger.cancel(job_id))
        except JobNotFound as error:
            job = await self.get(job_id)
            if job.state is State.CANCELLED:
                return job
            raise _ended(job.state) from error
        if outcome.outcome == "refused":
            raise _ended(outcome.before)
        if outcome.outcome == "publishing":
            raise ConflictError(
                "job_publishing", "The job is publishing its result just now.", hint="Look again in a moment."
            )
        return await self.get(job_id)

    async def events(self, job_id: str, *, after: str, limit: int) -> tuple[list[Event], bool]:
        """A page of the history, oldest first, and whether there are more."""
        events, more, _ = await self._backlog(job_id, after=after, limit=limit)
        return events, more

    def follow(self, job_id: str, *, after: str) -> AsyncGenerator[Event | None, None]:
        return self.feeds.follow(job_id, after=after)

    async def counts(self) -> dict[State, int]:
        return await self._ledger.read(lambda ledger: ledger.count())

    async def _archived(self, job_id: str) -> Job:
        return await anyio.to_thread.run_sync(archived_job, self._layout, job_id)

    async def _backlog(self, job_id: str, *, after: str, limit: int) -> tuple[list[Event], bool, bool]:
        job = await self.get(job_id)  # before the events: what a job had written when it ended is then on the page
        try:
            events, more = await self._ledger.read(lambda ledger: ledger.events(job_id, after=after, limit=limit))
        except (JobNotFound, UnavailableError):
            if not job.ended:
                raise
            events, more = await anyio.to_thread.run_sync(
                lambda: archived_events(self._layout, job_id, after=after, limit=limit)
            )
        return events, more, job.ended


def _idempotency(key: str | None, spec: dict[str, Any]) -> tuple[str, str] | None:
    if key is None:
        return None
    digest = hashlib.sha256(orjson.dumps(spec, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return "train:" + hashlib.sha256(key.encode()).hexdigest(), digest


def idempotency_conflict() -> InvalidError:
    return InvalidError(
        "idempotency_conflict",
        "This Idempotency-Key was used for another request.",
        hint="Send the same request again, or this one with a new key.",
    )


def bad_cursor(after: str) -> InvalidError:
    detail = f"Nothing is known under {after[:80]!r}"
    return InvalidError(
        "invalid_cursor",
        f"{detail}.",
        hint="`after` is the `next` of the page before.",
        errors=wrong("/query/after", detail),
    )


def _unknown(job_id: str) -> NotFoundError:
    return NotFoundError("job_not_found", f"There is no job {job_id!r}.", hint="GET /v1/jobs lists them.")


def _ended(state: State) -> ConflictError:
    return ConflictError(
        "job_ended", f"The job has ended: it is {state}.", hint="Only jobs under way can be cancelled."
    )


def _check_ready(dataset: DatasetView) -> None:
    if dataset.status is Status.IMPORTING:
        raise ConflictError(
            "dataset_not_ready",
            f"Dataset {dataset.id} is still being imported.",
            hint=f"Wait for it: GET /v1/jobs/{dataset.job}?wait=30",
        )
    if dataset.status is not Status.READY:
        reason = f": {dataset.error.message}" if dataset.error else ""
        raise ConflictError(
            "dataset_failed",
            f"The import of dataset {dataset.id} {dataset.status}{reason}",
            hint="Upload it again; GET /v1/datasets/{id} says what was wrong.",
        )
