"""Every Redis key of the ledger. The Lua scripts build the same names; `tests/jobs/test_keys.py` compares them."""

PREFIX = "rn:"

LAST_CREATED = PREFIX + "last_created"  # STRING: when the newest job was created, ms
ALL = PREFIX + "jobs"  # ZSET job id → created, ms
LEASES = PREFIX + "leases"  # ZSET job id → lease end, ms
UNARCHIVED = PREFIX + "unarchived"  # ZSET ended job id → ended, ms; until its record is beside its artifacts


def job(job_id: str) -> str:
    """HASH: the record."""
    return f"{PREFIX}job:{job_id}"


def events(job_id: str) -> str:
    """STREAM: everything that happened to the job; an entry's id is its SSE id."""
    return f"{PREFIX}job:{job_id}:events"


def state(name: str) -> str:
    """ZSET job id → created, ms: the jobs in one state."""
    return f"{PREFIX}state:{name}"


def due(lane: str) -> str:
    """ZSET queued job id → the moment from which it may be claimed, ms."""
    return f"{PREFIX}due:{lane}"


def idempotency(scope: str) -> str:
    """STRING with a time to live: `<job id> <digest of the request>`."""
    return f"{PREFIX}idempotency:{scope}"


def claim_token(token: str) -> str:
    """STRING with a time to live: the job that this claim attempt got, so that a blind retry gets it again."""
    return f"{PREFIX}claim:{token}"
