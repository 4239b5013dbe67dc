"""What Redis keeps of ended jobs, and for how long."""

import os

from churn import ALLOWED, churn, in_memory
from ledger_kit import claim, ended, submit

from jobs import keys
from jobs.model import Kind, Webhook

JOBS = int(os.environ.get("RESNETD_CHURN_JOBS", "2000"))


def test_only_what_ended_long_ago_goes_and_the_rest_stays(ledger):
    waiting, running, old, fresh = submit(ledger), submit(ledger, Kind.IMPORT), ended(ledger), ended(ledger)
    claim(ledger, "cpu")
    ledger.redis.zadd(keys.ENDED, {old: ledger.clock() - 60_000})
    assert ledger.sweep(older_than_ms=50_000, limit=10) == 1
    assert {job.id for job in ledger.page(limit=9)[0]} == {waiting, running, fresh}
    assert ledger.sweep(older_than_ms=50_000, limit=10) == 0


def test_what_is_not_on_disk_or_has_still_to_tell_somebody_stays_and_holds_up_nothing(ledger):
    unarchived = submit(ledger)
    ledger.cancel(unarchived)
    untold = ledger.submit(Kind.TRAIN, {}, webhook=Webhook(url="https://example.org")).job_id
    ledger.cancel(untold)
    ledger.archived(untold, retried_as=None)
    others = [ended(ledger) for _ in range(5)]
    assert ledger.sweep(older_than_ms=-1000, limit=3) == 3
    assert ledger.sweep(older_than_ms=-1000, limit=3) == 2
    assert {job.id for job in ledger.page(limit=9)[0]} == {unarchived, untold}
    (told,) = ledger.redis.zrange(keys.DELIVERIES, 0, -1)
    ledger.redis.zrem(keys.DELIVERIES, told)
    assert ledger.sweep(older_than_ms=-1000, limit=9) == 1
    assert len(others) == 5


def test_the_key_of_a_swept_job_still_gives_that_job(ledger):
    """Otherwise a late repetition of the request would run it a second time."""
    first = ledger.submit(Kind.TRAIN, {}, idempotency=("key", "digest"))
    ledger.cancel(first.job_id)
    ledger.archived(first.job_id, retried_as=None)
    assert ledger.sweep(older_than_ms=-1000, limit=9) == 1
    again = ledger.submit(Kind.TRAIN, {}, idempotency=("key", "digest"))
    assert (again.job_id, again.created) == (first.job_id, False)


def test_redis_is_as_small_after_thousands_of_jobs_as_before(ledger, redis):
    redis.config_set("appendfsync", "no")
    try:
        with in_memory() as layout:
            found = churn(ledger, redis, layout, JOBS)
    finally:
        redis.config_set("appendfsync", "always")
    assert found["growth"] <= ALLOWED, found
    assert set(ledger.count().values()) == {0}
