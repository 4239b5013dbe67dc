"""What has ended is also written beside its artifacts, and read from there when Redis has lost it."""

import re

import orjson

from jobs.ledger import JobNotFound, Ledger
from jobs.model import Event, Job
from store.files import write_atomic
from store.layout import Layout


def archive(ledger: Ledger, layout: Layout) -> None:
    """Write record.json and events.jsonl of every ended job that has none yet."""
    for job_id in ledger.unarchived():
        try:
            job = ledger.get(job_id)
        except JobNotFound:
            ledger.archived(job_id)
            continue
        folder = layout.job(job_id)
        folder.mkdir(parents=True, exist_ok=True)
        lines: list[bytes] = []
        after, more = "0-0", True
        while more:
            events, more = ledger.events(job_id, after=after, limit=1000)
            lines += [orjson.dumps(event.model_dump(mode="json")) for event in events]
            after = events[-1].id if events else after
        write_atomic(folder / "events.jsonl", b"\n".join(lines) + b"\n")
        write_atomic(folder / "record.json", job.model_dump_json(indent=2).encode())
        ledger.archived(job_id)


_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")


def _check(job_id: str) -> None:
    """Only what can be an id becomes part of a path."""
    if not _ID.fullmatch(job_id):
        raise JobNotFound(job_id)


def archived_job(layout: Layout, job_id: str) -> Job:
    """The record of an ended job. Raises JobNotFound."""
    _check(job_id)
    try:
        return Job.model_validate_json((layout.job(job_id) / "record.json").read_bytes())
    except FileNotFoundError as error:
        raise JobNotFound(job_id) from error


def archived_events(layout: Layout, job_id: str, *, after: str, limit: int) -> tuple[list[Event], bool]:
    """Events with ids above `after`, oldest first, and whether there are more. Raises JobNotFound."""
    _check(job_id)
    path = layout.job(job_id) / "events.jsonl"
    found: list[Event] = []
    try:
        with path.open("rb") as lines:
            for line in lines:
                event = Event.model_validate_json(line)
                if order(event.id) > order(after):
                    found.append(event)
                if len(found) > limit:
                    break
    except FileNotFoundError as error:
        raise JobNotFound(job_id) from error
    return found[:limit], len(found) > limit


def order(event_id: str) -> tuple[int, int]:
    """What event ids are compared by: `<milliseconds>-<n>`."""
    milliseconds, _, number = event_id.partition("-")
    return int(milliseconds), int(number or 0)
