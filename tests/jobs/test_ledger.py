"""The state machine of jobs, against a real Redis."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs import keys, owner
from jobs.ledger import IdempotencyConflict, JobNotFound, LeaseLost
from jobs.model import JobError, Kind, Lane, State

ERROR = JobError(code="crashed", message="it died")


def claim(ledger, lane=Lane.DEVICE, token=None, by="someone"):
    return ledger.claim(lane, owner=by, token=token or f"t{id(object())}")


def submit(ledger, kind=Kind.TRAIN, **spec):
    return ledger.submit(kind, spec).job_id


def types(ledger, job_id):
    return [event.type for event in ledger.events(job_id, limit=1000)[0]]


def due_now(ledger, job_id, lane=Lane.DEVICE):
    """Skip the wait before another try."""
    ledger.redis.zadd(keys.due(lane), {job_id: 0})


def test_a_job_runs_from_submission_to_success(ledger):
    job_id = submit(ledger, dataset="ds_1")
    assert ledger.get(job_id).state is State.QUEUED
    held = claim(ledger)
    assert (held.job_id, held.number, held.kind, held.spec) == (job_id, 1, Kind.TRAIN, {"dataset": "ds_1"})
    ledger.emit(held, 1, [("progress", {"step": 1})], patch={"progress": {"step": 1}})
    assert ledger.renew(held) is State.RUNNING
    assert ledger.begin_publishing(held)
    assert ledger.succeed(held, {"model": "m", "version": 1}) is State.SUCCEEDED
    job = ledger.get(job_id)
    assert job.state is State.SUCCEEDED
    assert job.result == {"model": "m", "version": 1}
    assert job.progress == {"step": 1}
    assert job.created_at <= job.started_at <= job.finished_at
    assert types(ledger, job_id) == ["queued", "running", "progress", "succeeded"]


def test_jobs_of_a_lane_are_claimed_in_the_order_of_submission_and_lanes_do_not_mix(ledger):
    trains = [submit(ledger) for _ in range(3)]
    imported = submit(ledger, Kind.IMPORT)
    assert [claim(ledger, token=str(n)).job_id for n in range(3)] == trains
    assert claim(ledger) is None
    assert claim(ledger, Lane.CPU).job_id == imported


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


def test_the_same_submission_twice_is_one_job(ledger):
    once = ledger.submit(Kind.TRAIN, {}, job_id="job_fixed")
    again = ledger.submit(Kind.TRAIN, {}, job_id="job_fixed")
    assert once == again
    assert types(ledger, "job_fixed") == ["queued"]


def test_an_idempotency_key_gives_the_first_job_and_refuses_another_request(ledger):
    first = ledger.submit(Kind.TRAIN, {}, idempotency=("k", "digest-a"))
    again = ledger.submit(Kind.TRAIN, {}, idempotency=("k", "digest-a"))
    assert again.job_id == first.job_id
    assert (first.created, again.created) == (True, False)
    with pytest.raises(IdempotencyConflict):
        ledger.submit(Kind.TRAIN, {}, idempotency=("k", "digest-b"))


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
        lambda: ledger.begin_publishing(stale),
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


def test_cancelling_a_queued_job_ends_it_at_once_and_it_never_starts(ledger):
    job_id = submit(ledger)
    assert ledger.cancel(job_id).outcome == "cancelled"
    assert ledger.get(job_id).state is State.CANCELLED
    assert claim(ledger) is None
    assert ledger.cancel(job_id).outcome == "cancelled"  # repeating is harmless
    assert types(ledger, job_id) == ["queued", "cancelled"]


def test_cancelling_a_running_job_tells_its_worker_and_ends_cancelled_even_if_it_finished_meanwhile(ledger):
    job_id = submit(ledger)
    held = claim(ledger)
    assert ledger.cancel(job_id).outcome == "cancelling"
    assert ledger.renew(held) is State.CANCELLING
    assert not ledger.begin_publishing(held)
    assert ledger.succeed(held, {}) is State.CANCELLED
    assert ledger.get(job_id).result is None


def test_a_job_whose_result_is_being_published_can_no_longer_be_cancelled(ledger):
    job_id = submit(ledger)
    held = claim(ledger)
    assert ledger.begin_publishing(held)
    assert ledger.cancel(job_id).outcome == "publishing"
    assert ledger.succeed(held, {"model": "m"}) is State.SUCCEEDED
    refused = ledger.cancel(job_id)
    assert (refused.before, refused.outcome) == (State.SUCCEEDED, "refused")


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
    ledger.redis.zadd(keys.LEASES, {held.job_id: 1})
    assert ledger.expire(job, owner_is_dead=False)
    assert ledger.state(held.job_id) is State.QUEUED
    assert not ledger.expire(job, owner_is_dead=True)  # it is nobody's any more
    due_now(ledger, held.job_id)
    claim(ledger, token="next")
    ((job, _),) = ledger.leases()
    assert ledger.expire(job, owner_is_dead=True)


def test_a_cancelling_job_whose_worker_died_ends_cancelled(ledger):
    job_id = submit(ledger)
    claim(ledger)
    ledger.cancel(job_id)
    ((job, _),) = ledger.leases()
    assert ledger.expire(job, owner_is_dead=True)
    assert ledger.state(job_id) is State.CANCELLED


def test_pages_hold_every_job_once_newest_first_also_while_their_states_change(ledger):
    jobs = [submit(ledger, Kind.TRAIN if n % 2 else Kind.IMPORT) for n in range(7)]
    seen, after, more = [], None, True
    while more:
        page, more = ledger.page(limit=2, after=after)
        seen += [job.id for job in page]
        after = page[-1].id
    assert sorted(seen) == sorted(jobs)
    queued, more = ledger.page(limit=2, state=State.QUEUED, kind=Kind.TRAIN)
    assert (len(queued), more) == (2, True)
    ledger.cancel(queued[-1].id)  # the cursor's job leaves the index that is being paged
    rest, _ = ledger.page(limit=9, state=State.QUEUED, kind=Kind.TRAIN, after=queued[-1].id)
    assert len(rest) == 1
    assert not {job.id for job in rest} & {job.id for job in queued}


def test_events_are_paged_by_id_without_gap_or_double(ledger):
    job_id = submit(ledger)
    held = claim(ledger)
    for n in range(1, 26):
        ledger.emit(held, n, [("progress", {"step": n})])
    seen, after, more = [], "0-0", True
    while more:
        events, more = ledger.events(job_id, after=after, limit=4)
        seen += events
        after = events[-1].id
    assert [event.data["step"] for event in seen if event.type == "progress"] == list(range(1, 26))
    assert len({event.id for event in seen}) == len(seen) == 27


def test_an_unknown_job_is_said_to_be_unknown(ledger):
    for ask in (ledger.get, ledger.state, ledger.cancel, ledger.events):
        with pytest.raises(JobNotFound):
            ask("job_none")


def test_counts_follow_the_states(ledger):
    submit(ledger)
    submit(ledger)
    claim(ledger)
    counts = ledger.count()
    assert counts[State.QUEUED] == counts[State.RUNNING] == 1
    assert counts[State.FAILED] == 0


def test_this_process_lives_and_a_reused_or_foreign_pid_is_told_apart():
    me = owner.this_process()
    assert not owner.is_dead(me)
    machine, _, rest = me.partition(":")
    assert owner.is_dead(f"{machine}:{rest.split(':')[0]}:12345")  # same pid, another start
    assert not owner.is_dead("elsewhere/0/0:1:1")  # cannot be seen from here
