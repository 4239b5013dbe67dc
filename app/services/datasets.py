"""Datasets as clients see them, from the acknowledged upload to the imported data.

`<data>/datasets/<id>/request.json` says what was uploaded and which job imports it; it lies there before the upload is
acknowledged, so that lists work without Redis and a start after a crash can hand in the job that was about to be asked.
"""

import contextlib
import os
from collections.abc import Collection, Iterator

import anyio.to_thread

from app.problems import ConflictError, InvalidError, NotFoundError, UnavailableError, wrong
from app.services.dataset_views import DatasetView, Status, UploadRecord, folders, is_id, record_of, view_of
from app.services.folder_locks import ALONE, SHARED, FolderBusy, locked
from app.services.jobs import Jobs, under_way
from app.services.ledger import AsyncLedger
from app.services.pages import bad_cursor
from jobs.answers import JobNotFound
from jobs.archive import archived_job
from jobs.cursor import place
from jobs.model import Job, JobError, State
from store.datasets import UPLOAD
from store.files import remove_tree
from store.layout import Layout


class Datasets:
    def __init__(self, ledger: AsyncLedger, layout: Layout, jobs: Jobs) -> None:
        self._ledger = ledger
        self._layout = layout
        self._jobs = jobs

    async def get(self, dataset_id: str) -> DatasetView:
        """Raises NotFoundError."""
        view = await anyio.to_thread.run_sync(self._load, dataset_id)
        if view is None:
            raise NotFoundError(
                "dataset_not_found", f"There is no dataset {dataset_id[:80]!r}.", hint="GET /v1/datasets lists them."
            )
        return await self._with_job(view)

    async def wait(self, dataset_id: str, seconds: float) -> DatasetView:
        """The dataset as soon as its import has ended, at the latest after `seconds`.

        Raises NotFoundError, and UnavailableError where nobody can tell of the import.
        """
        view = await self.get(dataset_id)
        if view.status is not Status.IMPORTING or view.job is None or seconds <= 0:
            return view
        job = await self._import(view.job)
        with contextlib.suppress(NotFoundError):  # a job that is only just being handed in
            await self._jobs.wait(view.job if job is None else job.id, seconds)
        return await self.get(dataset_id)

    async def page(
        self, *, limit: int, after: str | None, name: str | None = None, statuses: Collection[Status] | None = None
    ) -> tuple[list[DatasetView], bool]:
        """Datasets, newest first, from behind the cursor or dataset `after`; and whether there are more."""
        views = await anyio.to_thread.run_sync(self._load_all)
        start = 0
        if after is not None:
            start = next((index + 1 for index, view in enumerate(views) if view.id == after), -1)
            if behind := place(after):
                start = next((at for at, view in enumerate(views) if (view.created_at, view.id) < behind), len(views))
            elif start < 0:
                raise bad_cursor(after)
        found: list[DatasetView] = []
        for each in views[start:]:
            if name is not None and each.name != name:
                continue
            view = await self._with_job(each)
            if statuses is None or view.status in statuses:
                found.append(view)
            if len(found) > limit:
                break
        return found[:limit], len(found) > limit

    async def kept(self, dataset_id: str) -> "contextlib.AbstractContextManager[DatasetView]":
        """The dataset, which cannot be deleted within the context. Raises InvalidError with what there is instead."""
        lock = await self._locked(dataset_id, SHARED)
        try:
            view = None if lock is None else await anyio.to_thread.run_sync(self._load, dataset_id)
            if lock is None or view is None:
                raise await self._missing(dataset_id)
            view = await self._with_job(view)
        except BaseException:
            if lock is not None:
                os.close(lock)
            raise
        return _closing(lock, view)

    async def delete(self, dataset_id: str) -> None:
        """Raises NotFoundError, ConflictError while a job uses it, UnavailableError where that cannot be known."""
        await self.get(dataset_id)
        lock = await self._locked(dataset_id, ALONE)
        if lock is None:
            return  # another request has deleted it meanwhile
        try:
            user = await self._ledger.search(
                lambda ledger: under_way(ledger, lambda job: job.spec.get("dataset") == dataset_id)
            )
            if user is not None:
                raise ConflictError(
                    "dataset_in_use",
                    f"Job {user.id} ({user.kind}, {user.state}) uses this dataset.",
                    hint=f"Wait until it has ended, or cancel it: POST /v1/jobs/{user.id}/cancel",
                )
            await anyio.to_thread.run_sync(remove_tree, self._layout.dataset(dataset_id))
        finally:
            os.close(lock)

    def records(self) -> Iterator[UploadRecord]:
        """Every upload that is not imported yet. For threads."""
        for folder in folders(self._layout):
            if (folder / UPLOAD).exists() and (record := record_of(folder)) is not None:
                yield record

    async def _missing(self, dataset_id: str) -> InvalidError:
        views = await anyio.to_thread.run_sync(self._load_all)
        known = ", ".join(f"{view.id} ({view.name})" for view in views[:10]) or "none yet; POST /v1/datasets makes one"
        detail = f"There is no dataset {dataset_id[:80]!r}"
        hint = f"Datasets: {known}."
        return InvalidError("dataset_not_found", f"{detail}.", hint=hint, errors=wrong("#/dataset", detail))

    async def _with_job(self, view: DatasetView) -> DatasetView:
        """The view with what its import job says, where that decides the status."""
        if view.status is not Status.IMPORTING or view.job is None:
            return view
        job = await self._import(view.job)
        if job is not None and job.state is State.FAILED:
            return _replace(view, status=Status.FAILED, error=job.error)
        if job is not None and job.state is State.CANCELLED:
            return _replace(view, status=Status.CANCELLED)
        return view

    async def _import(self, job_id: str) -> Job | None:
        """The newest of an import job and those that try it again; None as for `_job`."""
        job = await self._job(job_id)
        while job is not None and job.retried_as and (newer := await self._job(job.retried_as)) is not None:
            job = newer
        return job

    async def _job(self, job_id: str) -> Job | None:
        """The job's record from Redis, else from disk; None where it is unknown whether there is one."""
        try:
            return await self._ledger.read(lambda ledger: ledger.get(job_id))
        except (JobNotFound, UnavailableError):
            with contextlib.suppress(JobNotFound):
                return await anyio.to_thread.run_sync(archived_job, self._layout, job_id)
        return None

    def _load(self, dataset_id: str) -> DatasetView | None:
        if not is_id(dataset_id):
            return None
        return view_of(self._layout.dataset(dataset_id))

    def _load_all(self) -> list[DatasetView]:
        views = [view for folder in folders(self._layout) if (view := view_of(folder)) is not None]
        return sorted(views, key=lambda view: (view.created_at, view.id), reverse=True)

    async def _locked(self, dataset_id: str, how: int) -> int | None:
        """A lock on the dataset's folder as an open file; None where there is no such folder.

        Raises UnavailableError where it is not to be had soon.
        """
        if not is_id(dataset_id):
            return None
        try:
            return await locked(self._layout.dataset(dataset_id), how)
        except FolderBusy as error:
            raise UnavailableError(
                "dataset_busy",
                f"Other requests keep dataset {dataset_id} from being used or deleted.",
                hint="A deletion looks through the jobs; ask again later.",
            ) from error


@contextlib.contextmanager
def _closing(lock: int, view: DatasetView) -> Iterator[DatasetView]:
    try:
        yield view
    finally:
        os.close(lock)


def _replace(view: DatasetView, *, status: Status, error: JobError | None = None) -> DatasetView:
    return DatasetView(**{**vars(view), "status": status, "error": error})
