"""Every Redis key of the ledger. The Lua scripts build the same names; `tests/jobs/test_keys.py` compares them."""

import re

PREFIX = "rn:"

LAST_CREATED = PREFIX + "last_created"  # STRING: the newest moment that a job was queued at, or a wait began, ms
ALL = PREFIX + "jobs"  # ZSET job id → created, ms
LEASES = PREFIX + "leases"  # ZSET job id → lease end, ms
UNARCHIVED = PREFIX + "unarchived"  # ZSET ended job id → ended, ms; until its record is beside its artifacts
ENDED = PREFIX + "ended"  # ZSET ended job id → ended, ms; what the sweep goes through
LONG = PREFIX + "long"  # ZSET id of a job with a long stream → 0; what the reconciler brings to disk
DELIVERIES = PREFIX + "deliveries"  # ZSET `<job id> <event id>` → the moment from which the webhook may be sent, ms
_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")


def is_id(job_id: str) -> bool:
    """Whether this can be a job's id. What cannot would name another key, such as `<id>:events`, or a path."""
    return _ID.fullmatch(job_id) is not None


def job(job_id: str) -> str:
    """HASH: the record."""
    return f"{PREFIX}job:{job_id}"


def events(job_id: str) -> str:
    """STREAM: everything that happened to the job; an entry's id is its SSE id."""
    return f"{PREFIX}job:{job_id}:events"


def deliveries(job_id: str) -> str:
    """LIST: the log of the job's webhook deliveries, newest first."""
    return f"{PREFIX}job:{job_id}:deliveries"


def state(name: str) -> str:
    """ZSET job id → created, ms: the jobs in one state."""
    return f"{PREFIX}state:{name}"


def due(lane: str, priority: str = "normal") -> str:
    """ZSET queued job id → the moment from which it may be claimed, ms."""
    return f"{PREFIX}due:{lane}" if priority == "normal" else f"{PREFIX}due:{lane}:{priority}"


def idempotency(scope: str) -> str:
    """STRING with a time to live: `<job id> <digest of the request>`."""
    return f"{PREFIX}idempotency:{scope}"


def claim_token(token: str) -> str:
    """STRING with a time to live: `<job id> <claim>` that this attempt got, so that a blind retry gets it again."""
    return f"{PREFIX}claim:{token}"


def verb_token(verb: str, job_id: str, token: str) -> str:
    """STRING with a time to live: what this verb was answered, so that a blind retry is answered the same."""
    return f"{PREFIX}verb:{verb}:{job_id}:{token}"


def plan(name: str) -> str:
    """STRING with a time to live: a plan that was asked for, or what is known for others like it."""
    return f"{PREFIX}plan:{name}"
