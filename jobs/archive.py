"""A job's history on disk: `events.jsonl` grows with it, `record.json` says how it ended.

Redis holds a job's newest events; whatever leaves it lies on disk before. `history` reads both as one.
"""

import fcntl
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import orjson
from pydantic import ValidationError
from redis import RedisError

from jobs import event_file
from jobs.answers import JobNotFound
from jobs.cursor import cursor, place
from jobs.event_file import order
from jobs.keys import is_id
from jobs.ledger import Ledger
from jobs.model import Event, Job
from store import faults
from store.files import make_dir, remove_temporary, write_atomic
from store.layout import Layout

log = logging.getLogger(__name__)

KEPT = 5_000  # events that stay in a long stream: followers and short outages are served from memory
_BATCH = 1000


def archive(ledger: Ledger, layout: Layout) -> None:
    """Write the record and the events of ended jobs that are not on disk yet; of what fails, the next call tries again.

    Of many, it takes the hundred that ended first. Raises `redis.RedisError`.
    """
    for job_id in ledger.unarchived():
        try:
            with _locked(layout.job(job_id)) as folder:
                if folder is not None:
                    _archive(ledger, job_id, folder)
        except RedisError:
            raise
        # A full disk, a folder that is being removed, a damaged file: others may fare better.
        except Exception as error:
            log.warning("an ended job is not on disk yet", extra={"job": job_id, "reason": repr(error)})


def _archive(ledger: Ledger, job_id: str, folder: Path) -> None:
    try:
        job = ledger.get(job_id)
        _append(ledger, job_id, folder)
    except JobNotFound:  # deleted a moment ago
        ledger.archived(job_id, retried_as=None)
        _remove_if_empty(folder)
        return
    faults.point("archive.appended")
    # The file needs no secret: nothing is sent for a job that Redis does not hold.
    whole = job.model_dump_json(indent=2, exclude={"webhook": {"secret"}})
    remove_temporary(folder, of="record.json")  # of who was killed over this; the folder is ours now
    write_atomic(folder / "record.json", whole.encode())
    for claim_dir in folder.glob("claim-*"):
        remove_temporary(claim_dir)  # of processes that died together with their supervisor
    faults.point("archive.recorded")
    ledger.archived(job_id, retried_as=job.retried_as)
    faults.point("archive.marked")


def spill(ledger: Ledger, layout: Layout, job_id: str, *, keep: int = KEPT) -> int:
    """Bring a live job's events to disk and drop all but the newest from its stream. How many were dropped."""
    with _locked(layout.job(job_id)) as folder:
        if folder is None:
            return 0
        try:
            ledger.state(job_id)
            stored = _append(ledger, job_id, folder)
        except JobNotFound:
            _remove_if_empty(folder)
            return 0
        faults.point("archive.appended")
        dropped = ledger.trim(job_id, stored=stored, keep=keep)
        faults.point("archive.trimmed")
        return dropped


@contextmanager
def _locked(folder: Path) -> Iterator[Path | None]:
    """The job's folder, held by a lock on the folder itself; None where another process holds it."""
    make_dir(folder)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield folder
    finally:
        os.close(fd)


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()


def _append(ledger: Ledger, job_id: str, folder: Path) -> str:
    return event_file.append(folder / "events.jsonl", lambda stored: ledger.events(job_id, after=stored, limit=_BATCH))


def history(ledger: Ledger, layout: Layout, job_id: str, after: str, limit: int) -> tuple[list[Event], bool]:
    """Events with ids above `after`, oldest first, and whether there are more; of any job, live or long ended.

    Raises JobNotFound, `redis.RedisError`.
    """
    try:
        window = ledger.window(job_id, after=after, limit=limit)
    except JobNotFound:
        return archived_events(layout, job_id, after=after, limit=limit)
    if window.first is None or order(after) >= order(window.first):
        return window.events, window.more
    # What the stream dropped was on disk before, so that nothing lies between the two.
    older = [each for each in _stored(layout, job_id, after, limit + 1) if order(each.id) < order(window.first)]
    found = [*older, *window.events]
    return found[:limit], window.more or len(found) > limit


def record(ledger: Ledger, layout: Layout, job_id: str) -> Job:
    """The record of any job, also of one that Redis has forgotten. Raises JobNotFound, `redis.RedisError`."""
    try:
        return ledger.get(job_id)
    except JobNotFound:
        return archived_job(layout, job_id)


def archived_job(layout: Layout, job_id: str) -> Job:
    """The record of an ended job. Raises JobNotFound."""
    _check(job_id)
    try:
        return Job.model_validate_json((layout.job(job_id) / "record.json").read_bytes())
    except FileNotFoundError as error:
        raise JobNotFound(job_id) from error


def page(
    layout: Layout, *, limit: int, after: str | None, only: Callable[[Job], bool], seconds: float
) -> tuple[list[Job], str | None]:
    """The ended jobs on disk for which `only` holds, newest first, from behind the cursor `after`; and the `after` of
    what follows, None at the end. Raises JobNotFound for what is no cursor.

    Once all are in order, it looks for so many `seconds` at most: there are then fewer jobs than `limit`, perhaps none.
    """
    behind = None if after is None else place(after)
    if after is not None and behind is None:
        raise JobNotFound(after)
    found: list[Job] = []
    until = math.inf
    for job in _newest(layout, behind):
        until = min(until, time.monotonic() + seconds)
        if only(job):
            if len(found) == limit:
                return found, cursor(found[-1].created_at, found[-1].id)
            found.append(job)
        if len(found) < limit and time.monotonic() >= until:
            return found, cursor(job.created_at, job.id)
    return found, None


def _newest(layout: Layout, behind: tuple[datetime, str] | None) -> Iterator[Job]:
    """It opens every record once, and those that it gives twice; one that cannot be read is left out."""
    created = ((moment, each.name) for each in layout.jobs.iterdir() if (moment := _created(each)) is not None)
    for _, job_id in sorted((each for each in created if behind is None or each < behind), reverse=True):
        with suppress(JobNotFound, ValidationError):  # deleted a moment ago, or damaged
            yield archived_job(layout, job_id)


def _created(folder: Path) -> datetime | None:
    """When an ended job was asked for; None where the record is not there or cannot be read."""
    try:
        return datetime.fromisoformat(orjson.loads((folder / "record.json").read_bytes())["created_at"]).astimezone(UTC)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def archived_events(layout: Layout, job_id: str, *, after: str, limit: int) -> tuple[list[Event], bool]:
    """Events on disk with ids above `after`, oldest first, and whether there are more. Raises JobNotFound."""
    _check(job_id)
    found = _stored(layout, job_id, after, limit + 1)
    if not found and not _file(layout, job_id).exists():
        raise JobNotFound(job_id)
    return found[:limit], len(found) > limit


def _stored(layout: Layout, job_id: str, after: str, limit: int) -> list[Event]:
    """None where there is no file."""
    try:
        return event_file.read(_file(layout, job_id), after=after, limit=limit)
    except FileNotFoundError:
        return []


def _file(layout: Layout, job_id: str) -> Path:
    return layout.job(job_id) / "events.jsonl"


def _check(job_id: str) -> None:
    """Only what can be an id becomes part of a path."""
    if not is_id(job_id):
        raise JobNotFound(job_id)
