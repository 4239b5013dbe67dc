"""Holding a job: one holder at a time, and what becomes of the job when its holder stops, dies or comes back late."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from ledger_kit import ERROR, claim, due_now, lease_is_past, submit, types

from jobs import keys
from jobs.answers import LeaseLost
from jobs.model import JobError, Lane, State


def test_a_claim_retried_blindly_gets_the_same_job_once(ledger):
    first, second = submit(ledger), submit(ledger)
    once, again = claim(ledger, token="same"), claim(ledger, token="same")
    assert once == again
    assert once.job_id == first
    assert ledger.state(second) is State.QUEUED


def test_fifty_workers_that_claim_at_once_get_fifty_different_jobs(ledger):
    submitted = {submit(ledger) for _ in range(50)}
    with ThreadPoolExecutor(16) as pool:
        claims = list(pool.map(lambda n: claim(ledger, token=f"w{n}"), range(60)))
    assert {held.job_id for held in claims if held} == submitted
    assert sum(held is None for held in claims) == 10


def test_a_stale_claim_can_write_nothing(ledger):
    job_id = submit(ledger)
    stale = claim(ledger, token="a")
    ledger.release(stale, crash=ERROR)
    due_now(ledger, job_id)
    current = claim(ledger, token="b")
    assert current.number == 2
    before = ledger.get(job_id), types(ledger, job_id)
    for write in (
        lambda: ledger.emit(stale, 99, [("epoch", {})], patch={"best": {"x": 1}}),
        lambda: ledger.renew(stale),
        lambda: ledger.look(stale),
        lambda: ledger.orders(stale),
        lambda: ledger.begin_publishing(stale, {"artifact": "a"}),
        lambda: ledger.succeed(stale, {}),
        lambda: ledger.fail(stale, ERROR),
        lambda: ledger.cancelled(stale),
        lambda: ledger.release(stale, crash=None),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert (ledger.get(job_id), types(ledger, job_id)) == before


def test_an_emission_retried_blindly_is_written_once(ledger):
    job_id = submit(ledger)
    held = claim(ledger)
    for _ in range(3):
        ledger.emit(held, 1, [("epoch", {"epoch": 1})])
    ledger.emit(held, 2, [("epoch", {"epoch": 2})])
    assert types(ledger, job_id) == ["queued", "running", "epoch", "epoch"]


def test_a_finish_retried_blindly_says_the_same(ledger):
    job_id = submit(ledger)
    held = claim(ledger)
    assert ledger.succeed(held, {}) is State.SUCCEEDED
    assert ledger.succeed(held, {}) is State.SUCCEEDED
    assert types(ledger, job_id).count("succeeded") == 1


def test_three_crashes_without_a_checkpoint_fail_the_job_and_a_checkpoint_starts_the_count_again(ledger):
    job_id = submit(ledger)
    for attempt, expected in ((1, State.QUEUED), (2, State.QUEUED)):
        assert ledger.release(claim(ledger, token=f"x{attempt}"), crash=ERROR) is expected
        assert claim(ledger, token="early") is None  # it waits a while before the next try
        due_now(ledger, job_id)
    held = claim(ledger, token="y")
    ledger.emit(held, 1, [("checkpoint", {"step": 5})])
    for attempt, expected in ((1, State.QUEUED), (2, State.QUEUED), (3, State.FAILED)):
        assert ledger.release(held, crash=ERROR) is expected
        if expected is State.QUEUED:
            due_now(ledger, job_id)
            held = claim(ledger, token=f"z{attempt}")
    job = ledger.get(job_id)
    assert job.error.code == "crash_loop"
    assert "it died" in job.error.message
    assert job.crashes == 5


def test_a_stop_in_good_order_requeues_without_counting(ledger):
    job_id = submit(ledger)
    for attempt in range(5):
        assert ledger.release(claim(ledger, token=str(attempt)), crash=None) is State.QUEUED
    assert ledger.get(job_id).crashes == 0


def test_a_lease_is_taken_away_only_when_it_is_past_or_its_owner_is_dead(ledger):
    submit(ledger)
    held = claim(ledger)
    ((job, _),) = ledger.leases()
    assert not ledger.expire(job, owner_is_dead=False)
    assert ledger.expire(lease_is_past(ledger, held.job_id), owner_is_dead=False)
    assert ledger.state(held.job_id) is State.QUEUED
    assert not ledger.expire(job, owner_is_dead=True)  # it is nobody's any more
    due_now(ledger, held.job_id)
    claim(ledger, token="next")
    ((job, _),) = ledger.leases()
    assert ledger.expire(job, owner_is_dead=True)


def test_with_a_time_of_grace_a_worker_that_was_cut_off_keeps_its_job_by_renewing(ledger):
    """After a pause of Redis every lease is past, and a reconciler may come first."""
    job_id = submit(ledger)
    held = claim(ledger)
    for _ in range(2):  # a pause, a renewal, another pause: the time of grace begins anew
        late = lease_is_past(ledger, job_id)
        assert not ledger.expire(late, owner_is_dead=False, grace_ms=5000)
        assert not ledger.expire(late, owner_is_dead=False, grace_ms=5000)
        ledger.redis.hincrby(keys.job(job_id), "late_since", -4000)
        ledger.renew(held)
    late = lease_is_past(ledger, job_id)
    assert not ledger.expire(late, owner_is_dead=False, grace_ms=5000)
    ledger.redis.hincrby(keys.job(job_id), "late_since", -5000)
    assert ledger.expire(late, owner_is_dead=False, grace_ms=5000)
    assert ledger.state(job_id) is State.QUEUED


def test_a_cancelling_job_whose_worker_died_ends_cancelled(ledger):
    job_id = submit(ledger)
    claim(ledger)
    ledger.cancel(job_id)
    ((job, _),) = ledger.leases()
    assert ledger.expire(job, owner_is_dead=True)
    assert ledger.state(job_id) is State.CANCELLED


def test_a_claim_whose_answer_was_lost_is_not_given_again_once_it_was_taken_away(ledger):
    """Two workers under one claim would be two trainings."""
    job_id = submit(ledger)
    claim(ledger, token="stopped between sending and hearing")
    ledger.expire(lease_is_past(ledger, job_id), owner_is_dead=False)
    due_now(ledger, job_id)
    assert claim(ledger, token="another").number == 2
    assert claim(ledger, token="stopped between sending and hearing") is None


def test_the_time_of_every_claim_is_counted_and_told_to_the_next(ledger):
    job_id = submit(ledger)
    ledger_claim = claim(ledger)
    ledger.redis.hincrby(keys.job(job_id), "counted_at", -60_000)  # it began a minute earlier
    assert ledger.get(job_id).claimed_at is not None
    ledger.release(ledger_claim, crash=None)
    held = claim(ledger)
    assert 60_000 <= held.ran_ms < 90_000
    ledger.release(held, crash=None)
    job = ledger.get(job_id)
    assert held.ran_ms <= job.ran_ms < 90_000
    assert job.claimed_at is job.counted_at is None


def some_hours_earlier(ledger, job_id, *, ran_ms):
    """As if the job had been claimed eight hours ago, and its lease had ended `ran_ms` later."""
    began = int(ledger.redis.hincrby(keys.job(job_id), "claimed_at", -8 * 3_600_000))
    ledger.redis.hset(keys.job(job_id), "counted_at", began)
    ledger.redis.zadd(keys.LEASES, {job_id: began + ran_ms})


@pytest.mark.parametrize("of_an_earlier_version", [False, True])
def test_a_night_that_the_machine_slept_through_is_not_time_that_a_job_ran(ledger, of_an_earlier_version):
    """Its worker sleeps with it, and renews as soon as it wakes."""
    job_id = submit(ledger)
    held = claim(ledger)
    some_hours_earlier(ledger, job_id, ran_ms=30_000)
    if of_an_earlier_version:
        ledger.redis.hdel(keys.job(job_id), "counted_at")
    for _ in range(2):
        ledger.renew(held)
    job = ledger.get(job_id)
    assert 30_000 <= job.ran_ms < 60_000
    assert job.counted_at > job.claimed_at
    ledger.release(held, crash=None)
    assert 30_000 <= claim(ledger).ran_ms < 60_000


def test_what_a_claim_ran_is_counted_at_each_renewal_and_once(ledger):
    job_id = submit(ledger)
    held = claim(ledger)
    for minutes in (1, 2, 3):
        ledger.redis.hincrby(keys.job(job_id), "counted_at", -60_000)
        assert ledger.get(job_id).ran_ms // 60_000 == minutes - 1
        ledger.renew(held)
        assert ledger.get(job_id).ran_ms // 60_000 == minutes
    ledger.succeed(held, {})
    assert ledger.get(job_id).ran_ms // 60_000 == 3


def test_a_night_in_which_the_machine_was_off_is_not_time_that_a_job_ran(ledger):
    job_id = submit(ledger)
    claim(ledger)
    some_hours_earlier(ledger, job_id, ran_ms=300_000)
    (held,) = [job for job, _ in ledger.leases()]
    assert ledger.expire(held, owner_is_dead=False)
    assert claim(ledger).ran_ms == 300_000


def test_a_clock_that_was_set_back_does_not_lengthen_the_wait_after_a_crash(ledger):
    job_id = submit(ledger)
    held = claim(ledger)
    ledger.redis.set(keys.LAST_CREATED, ledger.clock() + 3_600_000)  # an hour ahead, before
    ledger.release(held, crash=ERROR)
    assert ledger.redis.zscore(keys.due(Lane.DEVICE), job_id) < ledger.clock() + 10_000


def test_a_crash_keeps_its_log_in_the_record_and_out_of_the_events(ledger):
    job_id = submit(ledger)
    error = JobError(code="crashed", message="it died", log="Traceback …")
    for _ in range(3):
        due_now(ledger, job_id)
        ledger.release(claim(ledger), crash=error)
    assert ledger.get(job_id).error.log == "Traceback …"
    assert not any("Traceback" in str(event) for event in ledger.events(job_id)[0])
