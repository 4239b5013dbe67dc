"""Short words for what tests of the ledger say often."""

from itertools import count

from jobs import keys
from jobs.model import JobError, Kind, Lane, Priority

ERROR = JobError(code="crashed", message="it died")
_tokens = count()


def submit(ledger, kind=Kind.TRAIN, priority=Priority.NORMAL, **spec):
    return ledger.submit(kind, spec, priority=priority).job_id


def claim(ledger, lane=Lane.DEVICE, token=None, by="someone"):
    return ledger.claim(lane, owner=by, token=token or f"token-{next(_tokens)}")


def events(ledger, job_id):
    return [(event.type, event.data) for event in ledger.events(job_id, limit=1000)[0]]


def types(ledger, job_id):
    return [kind for kind, _ in events(ledger, job_id)]


def due_now(ledger, job_id, lane=Lane.DEVICE):
    """Skip the wait before another try."""
    ledger.redis.zadd(keys.due(lane, ledger.get(job_id).priority), {job_id: 0})


def lease_is_past(ledger, job_id):
    ledger.redis.zadd(keys.LEASES, {job_id: 1})
    (held,) = [job for job, _ in ledger.leases() if job.id == job_id]
    return held


def ended(ledger, **spec):
    """A job that has ended and is known to be on disk."""
    job_id = submit(ledger, **spec)
    ledger.cancel(job_id)
    ledger.archived(job_id, retried_as=None)
    return job_id
