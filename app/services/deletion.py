"""Deleting an ended job: its record, its history, and its folder with all that it wrote.

A mark in the folder comes first and the folder goes last. So a deletion that was cut off is seen, whatever was there
when it was cut off: the job is gone for readers, and asking for it again completes it, as does every server by itself.
"""

import fcntl
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio.to_thread

from app.problems import ConflictError, ProblemError
from app.services.ledger import AsyncLedger
from jobs import archive
from jobs.answers import JobNotFound
from jobs.ledger import Ledger
from jobs.model import TERMINAL, Job, Kind, State
from models.catalog import Catalog
from store.faults import point
from store.files import make_dir, write_atomic
from store.layout import Layout

log = logging.getLogger(__name__)

_MARK = "deleted"
_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")


def is_marked(layout: Layout, job_id: str) -> bool:
    """Whether the job's deletion has begun."""
    return _ID.fullmatch(job_id) is not None and (layout.job(job_id) / _MARK).exists()


class Deletion:
    def __init__(self, ledger: AsyncLedger, layout: Layout, catalog: Catalog) -> None:
        self._ledger = ledger
        self._layout = layout
        self._catalog = catalog

    async def check(self, job: Job) -> None:
        """Raises ConflictError for a job that has not ended, that is just tried again, or whose work is still there."""
        if not job.ended:
            raise _not_ended(job.id, job.state)
        again = await self._ledger.read(lambda ledger: self._last_try(ledger, job))
        if not again.ended:
            raise ConflictError(
                "job_retried",
                f"Job {again.id} tries this one again and is {again.state}: it may need what this one left.",
                hint=f"Wait until it has ended, or cancel it: POST /v1/jobs/{again.id}/cancel",
                members={"state": job.state},
            )
        if job.kind is Kind.IMPORT and self._layout.dataset(str(job.spec.get("dataset"))).exists():
            raise ConflictError(
                "job_has_dataset",
                f"Dataset {job.spec['dataset']} came of this job, which tells how.",
                hint=f"Delete the dataset first: DELETE /v1/datasets/{job.spec['dataset']}",
                members={"state": job.state},
            )
        made = await anyio.to_thread.run_sync(_model_of, self._catalog, job)
        if made is not None:
            raise ConflictError(
                "job_has_model",
                f"Model {made} came of this job, which is its lineage.",
                hint="A job stays as long as its model.",
                members={"state": job.state},
            )

    def _last_try(self, ledger: Ledger, job: Job) -> Job:
        with suppress(JobNotFound):
            while job.retried_as is not None:
                job = archive.record(ledger, self._layout, job.retried_as)
        return job

    async def run(self, job_id: str) -> None:
        """Delete an ended job, or complete a deletion that was cut off.

        Raises ConflictError where it was tried again, or asked for again, a moment ago; UnavailableError.
        """
        await anyio.to_thread.run_sync(self._mark, job_id)
        point("delete.marked")
        await self._run_marked(job_id)

    async def _run_marked(self, job_id: str) -> None:
        with suppress(JobNotFound):  # Redis had forgotten it, or an earlier attempt came this far
            answer = await self._ledger.write(lambda ledger: ledger.delete(job_id))
            if answer.outcome == "refused":
                await anyio.to_thread.run_sync(self._unmark, job_id)
                why = _retried if answer.before in TERMINAL else _not_ended
                raise why(job_id, answer.before)
        await anyio.to_thread.run_sync(self._remove, job_id)

    async def complete(self) -> None:
        """Complete every deletion that was cut off: its job is gone for readers, and its files are to go too.

        What cannot be completed now is logged and left to the next call.
        """
        for job_id in await anyio.to_thread.run_sync(self._marked):
            if not await anyio.to_thread.run_sync(is_marked, self._layout, job_id):
                continue  # somebody else has completed it
            try:
                await self._run_marked(job_id)
            except ConflictError as error:
                log.warning("a deletion was given up", extra={"job": job_id, "reason": str(error)})
            except (ProblemError, OSError) as error:
                log.warning("a deletion waits to be completed", extra={"job": job_id, "reason": str(error)})

    def _marked(self) -> list[str]:
        return [mark.parent.name for mark in self._layout.jobs.glob(f"*/{_MARK}") if _ID.fullmatch(mark.parent.name)]

    def _mark(self, job_id: str) -> None:
        folder = self._layout.job(job_id)
        make_dir(folder)
        write_atomic(folder / _MARK, b"")

    def _unmark(self, job_id: str) -> None:
        (self._layout.job(job_id) / _MARK).unlink(missing_ok=True)

    def _remove(self, job_id: str) -> None:
        """Under the lock that the archive takes: neither writes into what the other removes. The mark goes last.

        A folder without it is another's, which has come after somebody else's deletion.
        """
        folder = self._layout.job(job_id)
        with _locked(folder) as there:
            if not there or not (folder / _MARK).exists():
                return
            for each in folder.iterdir():
                if each.is_dir() and not each.is_symlink():
                    shutil.rmtree(each)
                elif each.name != _MARK:
                    each.unlink()
            shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether the folder is there; nobody else writes to it within the context."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield folder.exists()
    finally:
        os.close(fd)


def _not_ended(job_id: str, state: State) -> ConflictError:
    return ConflictError(
        "job_not_ended",
        f"The job cannot be deleted: it is {state}.",
        hint=f"Deleting never cancels: POST /v1/jobs/{job_id}/cancel, then delete it.",
        members={"state": state},
    )


def _retried(job_id: str, state: State) -> ConflictError:
    return ConflictError(
        "job_retried",
        "The job has just been tried again, and that may need what this one left.",
        hint=f"Wait until that has ended, or cancel it: GET /v1/jobs/{job_id} names it.",
        members={"state": state},
    )


def _model_of(catalog: Catalog, job: Job) -> str | None:
    """`name@version` of what came of a training or an upload, if it did and is there."""
    name = job.spec.get("register_as")
    if job.kind not in (Kind.TRAIN, Kind.ADOPT) or not name:
        return None
    version = catalog.made_by(name, job.id)
    return None if version is None else f"{name}@{version}"
