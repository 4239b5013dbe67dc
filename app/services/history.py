"""Jobs that have ended, read from the files beside their artifacts: what is left of them when Redis has lost them."""

from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from jobs.ledger import JobNotFound
from jobs.model import Event, Job
from store.files import read_json
from store.layout import Layout

_MOMENTS = ("created_at", "started_at", "finished_at")


def archived_job(layout: Layout, job_id: str) -> Job:
    """The record of an ended job. Raises JobNotFound."""
    try:
        record: dict[str, Any] = read_json(layout.job(job_id) / "record.json")
    except FileNotFoundError as error:
        raise JobNotFound(job_id) from error
    times = {name: datetime.fromisoformat(record[name]) for name in _MOMENTS if record.get(name)}
    return Job.model_validate({**record, **times})


def archived_events(layout: Layout, job_id: str, *, after: str, limit: int) -> tuple[list[Event], bool]:
    """Events with ids above `after`, oldest first, and whether there are more. Raises JobNotFound."""
    path: Path = layout.job(job_id) / "events.jsonl"
    found: list[Event] = []
    try:
        with path.open("rb") as lines:
            for line in lines:
                event = Event.model_validate(orjson.loads(line))
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
