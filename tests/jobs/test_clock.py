"""Redis's clock is set back by an hour: nothing waits for an hour because of it.

The clock of a real server cannot be set here, so every moment that it has put down is moved into the future.
"""

import orjson
import pytest
from ledger_kit import ERROR, claim, submit

from jobs import keys, reconciler
from jobs.deliveries import Deliveries, Outcome
from jobs.doorbell import Doorbell
from jobs.ledger import LEASE_MS
from jobs.model import Kind, Lane, State, Webhook
from jobs.reconciler import reconcile

HOUR_MS = 3_600_000
VISIBLE_MS = 30_000
HOOK = Webhook(url="https://example.org/hook", secret="whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3")


@pytest.fixture
def set_back(redis):
    """Everything that was put down now lies an hour ahead."""

    def later(job_id):
        for name, value in redis.hgetall(keys.job(job_id)).items():
            if name == "late_since":
                redis.hset(keys.job(job_id), name, int(value) + HOUR_MS)
            elif name.startswith("delivery:"):
                state, attempts, lease = value.split()
                redis.hset(keys.job(job_id), name, f"{state} {attempts} {int(lease) and int(lease) + HOUR_MS}")
        for place, text in enumerate(redis.lrange(keys.deliveries(job_id), 0, -1)):
            entry = orjson.loads(text)
            redis.lset(keys.deliveries(job_id), place, orjson.dumps({**entry, "at": entry["at"] + HOUR_MS}))

    def set_back():
        redis.set(keys.LAST_CREATED, f"{float(redis.get(keys.LAST_CREATED)) + HOUR_MS:.3f}")
        for index in (keys.LEASES, keys.DELIVERIES, *(keys.due(lane) for lane in Lane)):
            for member in redis.zrange(index, 0, -1):
                redis.zincrby(index, HOUR_MS, member)
        for job_id in redis.zrange(keys.ALL, 0, -1):
            later(job_id)

    return set_back


@pytest.fixture
def deliveries(ledger):
    return Deliveries(ledger.redis)


def take(deliveries):
    return deliveries.take(limit=10, visible_ms=VISIBLE_MS)


def cancelled(ledger):
    job_id = ledger.submit(Kind.TRAIN, {}, webhook=HOOK).job_id
    ledger.cancel(job_id)
    return job_id


def test_a_wait_after_a_crash_ends_with_it(ledger, set_back):
    job_id = submit(ledger)
    ledger.release(claim(ledger), crash=ERROR)
    assert (ledger.due(Lane.DEVICE), claim(ledger)) == (0, None)
    set_back()
    assert ledger.due(Lane.DEVICE) == 1
    assert claim(ledger).job_id == job_id


def test_what_is_due_counts_once_however_far_ahead_it_lies(ledger, set_back):
    ids = [submit(ledger) for _ in range(3)]
    set_back()
    assert ledger.due(Lane.DEVICE) == 3
    assert [claim(ledger).job_id for _ in range(3)] == ids


def test_the_lease_of_a_lost_worker_ends(ledger, layout, redis_url, monkeypatch, set_back):
    job_id = submit(ledger)
    ledger.claim(Lane.DEVICE, owner="another machine:1:1", token="t")
    set_back()
    monkeypatch.setattr(ledger.redis, "info", lambda _: {"uptime_in_seconds": -HOUR_MS / 1000 + 60})
    reconcile(ledger, Doorbell(redis_url), layout)
    assert ledger.state(job_id) is State.RUNNING
    ledger.redis.hincrby(keys.job(job_id), "late_since", -reconciler.GRACE_MS)
    reconcile(ledger, Doorbell(redis_url), layout)
    assert ledger.state(job_id) is State.QUEUED


def test_the_time_of_grace_does_not_last_an_hour(ledger, set_back):
    submit(ledger)
    claim(ledger)
    ((job, _),) = ledger.leases()
    ledger.redis.zadd(keys.LEASES, {job.id: 1})
    assert not ledger.expire(job, owner_is_dead=False, grace_ms=reconciler.GRACE_MS)
    set_back()
    assert not ledger.expire(job, owner_is_dead=False, grace_ms=reconciler.GRACE_MS)
    ledger.redis.hincrby(keys.job(job.id), "late_since", -reconciler.GRACE_MS)
    assert ledger.expire(job, owner_is_dead=False, grace_ms=reconciler.GRACE_MS)


def test_a_worker_that_lives_keeps_its_job(ledger, set_back):
    job_id = submit(ledger)
    held = claim(ledger)
    set_back()
    ((job, _),) = ledger.leases()
    assert not ledger.expire(job, owner_is_dead=False, grace_ms=reconciler.GRACE_MS)
    ledger.renew(held)
    assert ledger.redis.zscore(keys.LEASES, job_id) <= ledger.clock() + LEASE_MS
    assert ledger.redis.hget(keys.job(job_id), "late_since") is None
    assert not ledger.expire(job, owner_is_dead=False)


def test_a_delivery_that_was_never_tried_is_taken_once(ledger, deliveries, redis, set_back):
    job_id = cancelled(ledger)
    redis.set(keys.LAST_CREATED, "1.000")  # no job was created for long: the delivery itself tells of the clock
    other = cancelled(ledger)
    assert float(redis.get(keys.LAST_CREATED)) > 1
    set_back()
    assert {each.job_id for each in take(deliveries)} == {job_id, other}
    assert take(deliveries) == []


def test_a_delivery_that_a_killed_process_had_taken_is_taken(ledger, deliveries, set_back):
    cancelled(ledger)
    (first,) = take(deliveries)
    set_back()
    (second,) = take(deliveries)
    assert (second.message_id, second.lease < first.lease + HOUR_MS) == (first.message_id, True)
    assert take(deliveries) == []


def test_a_delivery_that_waits_for_another_attempt_is_taken_and_the_next_wait_is_kept(ledger, deliveries, set_back):
    job_id = cancelled(ledger)
    (taken,) = take(deliveries)
    assert deliveries.again(taken, pause_ms=30_000, status=503, error=None, ms=1)
    assert take(deliveries) == []
    set_back()
    (again,) = take(deliveries)
    assert again.attempts == 1
    assert deliveries.again(again, pause_ms=30_000, status=503, error=None, ms=1)
    assert take(deliveries) == []  # it waits by the new clock, and is not sent attempt after attempt
    assert [each.outcome for each in deliveries.log(job_id)] == [Outcome.RETRY] * 2
