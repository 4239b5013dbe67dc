"""The state machine of jobs, against a real Redis."""

import pytest
from ledger_kit import claim, submit, types

from jobs import keys, owner
from jobs.answers import Answer, IdempotencyConflict, JobNotFound, QueueFull
from jobs.ledger import Ledger
from jobs.model import Held, Kind, Lane, Priority, State, Webhook
from jobs.redis import connect


def test_a_job_runs_from_submission_to_success(ledger):
    job_id = submit(ledger, dataset="ds_1")
    assert ledger.get(job_id).state is State.QUEUED
    held = claim(ledger)
    assert (held.job_id, held.number, held.kind, held.spec) == (job_id, 1, Kind.TRAIN, {"dataset": "ds_1"})
    ledger.emit(held, 1, [("progress", {"step": 1})], patch={"progress": {"step": 1}})
    assert ledger.renew(held) == ledger.look(held) == Held(State.RUNNING, orders=0)
    assert ledger.begin_publishing(held, {"artifact": "a"})
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


def test_so_many_jobs_may_be_unfinished_and_no_more(ledger, redis_url):
    """Whatever they wait for; what was asked before is answered as it was, and one that ends makes room for one."""
    bounded = Ledger(connect(redis_url), most_unfinished=3)
    waiting, old = submit(bounded), submit(bounded)
    bounded.cancel(old)
    first = bounded.submit(Kind.TRAIN, {}, job_id="job_keyed", idempotency=("k", "d"))
    held = claim(bounded)
    assert held.job_id == waiting
    paused = submit(bounded, Kind.IMPORT)
    bounded.pause(paused)
    for more in (lambda: submit(bounded, Kind.EXPORT), lambda: bounded.retry(old), bounded.check_room):
        with pytest.raises(QueueFull):
            more()
    with pytest.raises(QueueFull):
        bounded.submit(Kind.TRAIN, {}, idempotency=("new", "d"))
    assert bounded.asked(("new", "d")) is None
    assert bounded.submit(Kind.TRAIN, {}, idempotency=("k", "d")).job_id == first.job_id
    assert bounded.submit(Kind.TRAIN, {}, job_id="job_keyed").created  # the same call twice
    bounded.succeed(held, {})
    bounded.check_room()
    assert bounded.retry(old).created
    with pytest.raises(QueueFull):
        bounded.check_room()
    bounded.redis.close()


def test_cancelling_a_queued_job_ends_it_at_once_and_it_never_starts(ledger):
    job_id = submit(ledger)
    assert ledger.cancel(job_id) == Answer(State.QUEUED, "done")
    assert ledger.get(job_id).state is State.CANCELLED
    assert claim(ledger) is None
    assert ledger.cancel(job_id) == Answer(State.CANCELLED, "unchanged")  # repeating is harmless
    assert types(ledger, job_id) == ["queued", "cancelled"]


def test_cancelling_a_running_job_tells_its_worker_and_ends_cancelled_even_if_it_finished_meanwhile(ledger):
    job_id = submit(ledger)
    held = claim(ledger)
    assert ledger.cancel(job_id) == Answer(State.RUNNING, "done")
    assert ledger.renew(held).state is State.CANCELLING
    assert not ledger.begin_publishing(held, {"artifact": "a"})
    assert ledger.succeed(held, {}) is State.CANCELLED
    assert ledger.get(job_id).result is None


def test_a_job_whose_result_is_being_published_can_no_longer_be_cancelled(ledger):
    job_id = submit(ledger)
    held = claim(ledger)
    assert ledger.begin_publishing(held, {"artifact": "a"})
    assert ledger.cancel(job_id).outcome == "publishing"
    assert ledger.succeed(held, {"model": "m"}) is State.SUCCEEDED
    refused = ledger.cancel(job_id)
    assert (refused.before, refused.outcome) == (State.SUCCEEDED, "refused")


def test_setting_the_clock_back_hides_no_job(ledger):
    """Seen from Redis: the moments that it gave out lie an hour ahead."""
    ledger.redis.set(keys.LAST_CREATED, f"{ledger.clock() + 3_600_000:.3f}")
    first, second = submit(ledger), submit(ledger)
    assert ledger.due(Lane.DEVICE) == 2
    assert [claim(ledger).job_id for _ in range(2)] == [first, second]


def test_pages_hold_every_job_once_newest_first_also_while_their_states_change(ledger):
    jobs = [submit(ledger, Kind.TRAIN if n % 2 else Kind.IMPORT) for n in range(7)]
    seen, after, more = [], None, True
    while more:
        page, more = ledger.page(limit=2, after=after)
        seen += [job.id for job in page]
        after = page[-1].id
    assert sorted(seen) == sorted(jobs)
    queued, more = ledger.page(limit=2, state=State.QUEUED, kind=Kind.TRAIN)
    assert (len(queued), more is not None) == (2, True)
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


def test_a_jobs_limits_and_webhook_come_back_as_they_were_given(ledger):
    webhook = Webhook(url="https://example.org/hook", events=(State.RUNNING,), secret="whsec_c2VjcmV0")
    given = {"max_seconds": 90.5, "priority": Priority.HIGH, "webhook": webhook}
    job = ledger.get(ledger.submit(Kind.EVALUATE, {"model": "m"}, **given).job_id)
    assert (job.max_seconds, job.priority, job.webhook, job.kind) == (90.5, Priority.HIGH, webhook, Kind.EVALUATE)
    assert "whsec" not in repr(job)
    assert claim(ledger).max_seconds == 90.5


def test_a_wanted_state_is_put_down_for_delivery_in_the_same_step(ledger):
    webhook = Webhook(url="https://example.org/hook", events=(State.RUNNING, State.CANCELLED))
    job_id = ledger.submit(Kind.TRAIN, {}, webhook=webhook).job_id
    held = claim(ledger)
    ledger.release(held, crash=None)
    ledger.cancel(job_id)
    written = ledger.events(job_id)[0]
    wanted = [f"{job_id} {event.id}" for event in written if event.type in ("running", "cancelled")]
    assert ledger.redis.zrange(keys.DELIVERIES, 0, -1) == wanted
    assert len(wanted) == 2


def test_a_job_that_an_earlier_version_wrote_runs_and_is_swept(ledger):
    """Its record knows no priority, no orders, no time; its place in the queue had the same name."""
    pipe = ledger.redis.pipeline()
    old = {"id": "job_old", "kind": "train", "lane": "device", "spec": "{}", "created_at": "1700000000000.000"}
    pipe.hset("rn:job:job_old", mapping={**old, "claim": 0, "crashes": 0, "state": "queued"})
    pipe.zadd("rn:jobs", {"job_old": 1700000000000})
    pipe.zadd("rn:state:queued", {"job_old": 1700000000000})
    pipe.zadd("rn:due:device", {"job_old": 1700000000000})
    pipe.xadd("rn:job:job_old:events", {"type": "queued", "data": "{}"})
    # … and one that had ended and was archived.
    gone = {**old, "id": "job_gone", "state": "succeeded", "finished_at": "1700000000000"}
    pipe.hset("rn:job:job_gone", mapping=gone)
    pipe.zadd("rn:jobs", {"job_gone": 1700000000000})
    pipe.zadd("rn:state:succeeded", {"job_gone": 1700000000000})
    pipe.execute()
    assert ledger.position("job_old") == 1
    assert ledger.patch("job_old", settings={"lr": 0.1}).outcome == "done"
    held = claim(ledger)
    assert (held.job_id, held.orders.settings, held.ran_ms) == ("job_old", {"lr": 0.1}, 0)
    assert ledger.succeed(held, {}) is State.SUCCEEDED
    assert ledger.sweep(older_than_ms=3_600_000, limit=10) == 1
    assert [job.id for job in ledger.page(limit=9)[0]] == ["job_old"]


def test_this_process_lives_and_a_reused_or_foreign_pid_is_told_apart():
    me = owner.this_process()
    assert not owner.is_dead(me)
    machine, _, rest = me.partition(":")
    assert owner.is_dead(f"{machine}:{rest.split(':')[0]}:12345")  # same pid, another start
    assert not owner.is_dead("elsewhere/0/0:1:1")  # cannot be seen from here
