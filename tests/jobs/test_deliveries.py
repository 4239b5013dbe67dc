"""Webhook deliveries in the ledger: put down with the change of state, taken for a while, logged once."""

import pytest

from jobs import keys
from jobs.deliveries import LOG_LENGTH, Deliveries, Outcome
from jobs.model import Kind, State, Webhook

HOOK = Webhook(url="https://example.org/hook", secret="whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3")


@pytest.fixture
def deliveries(ledger):
    return Deliveries(ledger.redis)


@pytest.fixture
def cancelled(ledger):
    """A job whose end somebody wants to be told of."""
    job_id = ledger.submit(Kind.TRAIN, {}, webhook=HOOK).job_id
    ledger.cancel(job_id)
    return job_id


def take(deliveries, *, visible_ms=60_000):
    return deliveries.take(limit=10, visible_ms=visible_ms)


def test_only_states_that_were_asked_for_are_delivered(ledger, deliveries):
    silent = ledger.submit(Kind.TRAIN, {}).job_id
    quick = ledger.submit(Kind.TRAIN, {}, webhook=HOOK.model_copy(update={"events": (State.QUEUED,)})).job_id
    told = ledger.submit(Kind.TRAIN, {}, webhook=HOOK).job_id
    for job_id in (silent, quick, told):
        ledger.cancel(job_id)
    assert {(each.job_id, each.state) for each in take(deliveries)} == {(quick, "queued"), (told, "cancelled")}
    assert [each.delivery for each in deliveries.pending(told)] == [ledger.events(told)[0][-1].id]
    assert deliveries.pending(silent) == []


def test_what_one_has_taken_nobody_else_gets_until_its_time_is_over(deliveries, cancelled, redis):
    (first,) = take(deliveries)
    assert take(deliveries) == []
    redis.zadd(keys.DELIVERIES, {f"{cancelled} {first.event_id}": 1})  # as if the first taker's time had passed
    (second,) = take(deliveries, visible_ms=90_000)  # even in the same millisecond this is another lease
    assert second.message_id == first.message_id
    assert not deliveries.done(first, Outcome.DELIVERED, status=200, error=None, ms=1)
    assert deliveries.log(cancelled) == []
    assert deliveries.done(second, Outcome.DELIVERED, status=200, error=None, ms=1)
    assert deliveries.pending(cancelled) == []


def test_an_attempt_that_is_written_down_twice_counts_once(deliveries, cancelled):
    (taken,) = take(deliveries)
    assert deliveries.again(taken, pause_ms=0, status=503, error=None, ms=7)
    assert not deliveries.again(taken, pause_ms=0, status=503, error=None, ms=7)
    (retried,) = take(deliveries)
    assert (retried.message_id, retried.attempts) == (taken.message_id, 1)
    assert deliveries.done(retried, Outcome.GIVEN_UP, status=None, error="no connection", ms=3)
    last, first = deliveries.log(cancelled)
    assert (first.attempt, first.outcome, first.status, first.error, first.ms) == (1, "retry", 503, None, 7)
    assert (last.attempt, last.outcome, last.status, last.error) == (2, "given_up", None, "no connection")
    assert first.next_at is not None
    assert first.next_at >= first.at
    assert last.next_at is None


def test_a_delivery_that_is_over_can_be_asked_for_again_and_a_foreign_one_cannot(deliveries, cancelled, ledger):
    (taken,) = take(deliveries)
    assert deliveries.repeat(cancelled, taken.event_id) == "sending"
    deliveries.done(taken, Outcome.GONE, status=410, error=None, ms=1)
    assert deliveries.repeat(cancelled, taken.event_id) == "again"
    assert deliveries.repeat(cancelled, taken.event_id) == "again"
    (repeated,) = take(deliveries)
    assert (repeated.message_id, repeated.attempts, repeated.state) == (taken.message_id, 0, "cancelled")
    queued = ledger.events(cancelled)[0][0].id
    assert deliveries.repeat(cancelled, queued) == "unknown"
    assert deliveries.repeat("job_none", taken.event_id) == "unknown"


def test_a_retry_that_is_far_off_can_be_brought_forward(deliveries, cancelled):
    (taken,) = take(deliveries)
    deliveries.again(taken, pause_ms=3_600_000, status=500, error=None, ms=1)
    assert take(deliveries) == []
    assert deliveries.repeat(cancelled, taken.event_id) == "again"
    (sooner,) = take(deliveries)
    assert sooner.attempts == 1


def test_the_log_keeps_the_newest(deliveries, cancelled, redis):
    for _ in range(LOG_LENGTH + 5):
        (taken,) = take(deliveries)
        deliveries.again(taken, pause_ms=0, status=500, error=None, ms=1)
    found = deliveries.log(cancelled)
    assert [each.attempt for each in found] == list(range(LOG_LENGTH + 5, 5, -1))


def test_deliveries_of_a_job_that_was_deleted_are_dropped(deliveries, cancelled, ledger, redis):
    (taken,) = take(deliveries)
    redis.zadd(keys.DELIVERIES, {"job_none 1-1": 1})
    ledger.delete(cancelled)
    assert not deliveries.done(taken, Outcome.DELIVERED, status=200, error=None, ms=1)
    assert take(deliveries) == []
    assert redis.zcard(keys.DELIVERIES) == 0
    assert not redis.exists(keys.deliveries(cancelled))


def test_a_job_in_delivery_is_not_swept(deliveries, cancelled, ledger):
    for job_id in ledger.unarchived():
        ledger.archived(job_id, retried_as=None)
    assert ledger.sweep(older_than_ms=0, limit=10) == 0
    (taken,) = take(deliveries)
    deliveries.done(taken, Outcome.DELIVERED, status=200, error=None, ms=1)
    assert ledger.sweep(older_than_ms=0, limit=10) == 1
