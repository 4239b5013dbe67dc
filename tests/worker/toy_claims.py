"""What a test sees of claims whose process is `toy_job`."""

import os

from waiting import wait_for

from jobs.ledger import Ledger
from jobs.model import Job
from store.layout import Layout

DONE = [["artifact"], ["exit", 0]]  # a claim that succeeds


def started(layout: Layout, job_id: str, claim: int = 1) -> int:
    """Wait until a claim's process runs; its pid."""
    path = layout.job(job_id) / f"pid-{claim}"
    return int(wait_for(lambda: path.exists() and path.read_text()))


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def ended(ledger: Ledger, job_id: str, seconds: float = 30.0) -> Job:
    wait_for(lambda: ledger.get(job_id).ended, seconds)
    return ledger.get(job_id)
