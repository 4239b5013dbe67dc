"""What has ended is also written beside its artifacts, so that its history outlives Redis."""

import orjson

from jobs.ledger import JobNotFound, Ledger
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
