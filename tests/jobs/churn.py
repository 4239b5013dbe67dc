"""Jobs by the thousand: submitted, run, archived, swept; and what Redis holds of them afterwards.

`PYTHONPATH=tests python tests/jobs/churn.py [JOBS]` is the long form; its last line is one JSON object.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from running import REDIS_ADMIN, redis_admin_url, wait_for_redis

from jobs.archive import archive
from jobs.ledger import Ledger
from jobs.model import LANES, Kind, Priority, State, Webhook
from jobs.redis import connect
from resnetd import embedded_redis
from store import redis_account
from store.layout import Layout

WARM_UP = 300  # jobs at least, and a twentieth of the others
SETTLE_SECONDS = 20.0  # Redis shrinks its tables and frees in the background
ALLOWED = 0.02
WEBHOOK = Webhook(url="https://example.org/", secret="whsec_c2VjcmV0")


def churn(ledger: Ledger, admin: Redis, layout: Layout, jobs: int, *, batch: int = 100) -> dict[str, float]:
    """Take `jobs` jobs through their lives. `admin` may do everything to the same Redis.

    Returns used_memory in bytes before (after a warm-up) and after, and `growth`, the share by which it grew.
    """
    started = time.monotonic()
    _live(ledger, admin, layout, max(WARM_UP, jobs // 20), batch)
    before = _settled_memory(admin)
    _live(ledger, admin, layout, jobs, batch)
    after = _settled_memory(admin, wanted=before * (1 + ALLOWED))
    seconds = time.monotonic() - started
    return {"jobs": jobs, "before": before, "after": after, "growth": after / before - 1, "seconds": round(seconds, 1)}


def _live(ledger: Ledger, admin: Redis, layout: Layout, jobs: int, batch: int) -> None:
    for first in range(0, jobs, batch):
        for number in range(first, min(first + batch, jobs)):
            _one(ledger, number)
        admin.delete("rn:deliveries")  # as if every webhook had been told
        while ledger.unarchived():
            archive(ledger, layout)
        while ledger.sweep(older_than_ms=-1000, limit=1000):
            pass
    _tokens_run_out(admin)


def _one(ledger: Ledger, number: int) -> None:
    """A job's life: the kinds of ends, verbs and crashes take turns."""
    kind = list(Kind)[number % len(Kind)]
    asked = {"priority": list(Priority)[number % 3], "webhook": WEBHOOK if number % 5 == 0 else None}
    job_id = ledger.submit(kind, {"number": number}, **asked).job_id
    if number % 7 == 0:
        ledger.cancel(job_id)
        return
    held = ledger.claim(LANES[kind], owner="churn", token=f"churn-{number}")
    assert held is not None
    assert held.job_id == job_id
    ledger.emit(held, 1, [("progress", {"step": step}) for step in range(5)], patch={"progress": {"step": 4}})
    if number % 11 == 0:
        ledger.patch(job_id, settings={}, priority=Priority.LOW if asked["priority"] != "low" else Priority.HIGH)
        ledger.release(held, crash=None)
        held = ledger.claim(LANES[kind], owner="churn", token=f"churn-{number}-again")
        assert held is not None
    assert ledger.begin_publishing(held, {"artifact": "a"})
    assert ledger.succeed(held, {"number": number}) is State.SUCCEEDED


def _tokens_run_out(admin: Redis) -> None:
    """What is kept for a few minutes against blind retries goes now."""
    for key in [*admin.scan_iter("rn:verb:*", count=1000), *admin.scan_iter("rn:claim:*", count=1000)]:
        assert admin.pttl(key) > 0
        admin.delete(key)


def _settled_memory(admin: Redis, wanted: float = 0.0) -> float:
    """used_memory without caches and without the log of slow commands, once it falls no more or is as `wanted`."""
    admin.slowlog_reset()
    until = time.monotonic() + SETTLE_SECONDS
    least, since = float("inf"), time.monotonic()
    while time.monotonic() < until:
        admin.memory_purge()
        used = float(admin.info("memory")["used_memory"])
        if used < least * 0.999:
            least, since = used, time.monotonic()
        if least <= wanted or time.monotonic() - since > 1.5:
            break
        time.sleep(0.1)
    return least


@contextmanager
def in_memory() -> Iterator[Layout]:
    """A data directory that waits for no disk, where the machine has such a place."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="resnetd-churn-", dir=memory if memory.is_dir() else None) as folder:
        yield Layout(Path(folder) / "data").create()


def main(jobs: int) -> int:
    """The long form, with a Redis of its own. Exit status 1 where memory did not come back."""
    with in_memory() as layout:
        server = subprocess.Popen([*embedded_redis.command(layout), *REDIS_ADMIN])
        try:
            admin = connect(redis_admin_url(layout))
            wait_for_redis(server, layout)
            admin.config_set("appendfsync", "no")
            found = churn(Ledger(connect(redis_account.url(layout))), admin, layout, jobs)
        finally:
            server.terminate()
            server.wait()
    passed = found["growth"] <= ALLOWED
    print(json.dumps({"check": "churn", "passed": passed, **found}))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("RESNETD_CHURN_JOBS", "50000"))))
