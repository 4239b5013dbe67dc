"""What people ask of a job on its way: each verb in each state, said twice, and said too late."""

import pytest
from ledger_kit import ERROR, claim, due_now, ended, events, lease_is_past, submit, types

from jobs import keys
from jobs.answers import Answer, JobNotFound, LeaseLost, RetryRefused
from jobs.model import TERMINAL, Kind, Lane, Priority, State, Webhook

ENDED = {state: Answer(state, "refused") for state in TERMINAL}
REFUSED = "refused"

# What each verb answers to a training in each state; it has been claimed, but for `new`.
ANSWERS = {
    "cancel": {
        "new": "done", "queued": "done", "running": "done", "publishing": "publishing", "cancelling": "unchanged",
        "pausing": "done", "paused": "done", "succeeded": REFUSED, "failed": REFUSED, "cancelled": "unchanged",
    },
    "pause": {
        "new": "done", "queued": "done", "running": "done", "publishing": "publishing", "cancelling": REFUSED,
        "pausing": "unchanged", "paused": "unchanged", "succeeded": REFUSED, "failed": REFUSED, "cancelled": REFUSED,
    },
    "resume": {
        "new": "unchanged", "queued": "unchanged", "running": "unchanged", "publishing": "unchanged",
        "cancelling": REFUSED, "pausing": "done", "paused": "done", "succeeded": REFUSED, "failed": REFUSED,
        "cancelled": REFUSED,
    },
    "finish": {
        "new": "nothing_to_keep", "queued": "done", "running": "done", "publishing": "publishing",
        "cancelling": REFUSED, "pausing": "done", "paused": "done", "succeeded": REFUSED, "failed": REFUSED,
        "cancelled": REFUSED,
    },
    "checkpoint": {
        "new": "done", "queued": "done", "running": "done", "publishing": "publishing", "cancelling": REFUSED,
        "pausing": "done", "paused": "done", "succeeded": REFUSED, "failed": REFUSED, "cancelled": REFUSED,
    },
    "patch": {
        "new": "done", "queued": "done", "running": "done", "publishing": "publishing", "cancelling": REFUSED,
        "pausing": "done", "paused": "done", "succeeded": REFUSED, "failed": REFUSED, "cancelled": REFUSED,
    },
    "delete": {
        "new": REFUSED, "queued": REFUSED, "running": REFUSED, "publishing": REFUSED, "cancelling": REFUSED,
        "pausing": REFUSED, "paused": REFUSED, "succeeded": "done", "failed": "done", "cancelled": "done",
    },
}  # fmt: skip

AFTER = {
    ("cancel", "running"): State.CANCELLING,
    ("cancel", "pausing"): State.CANCELLING,
    ("cancel", "new"): State.CANCELLED,
    ("cancel", "queued"): State.CANCELLED,
    ("cancel", "paused"): State.CANCELLED,
    ("pause", "new"): State.PAUSED,
    ("pause", "queued"): State.PAUSED,
    ("pause", "running"): State.PAUSING,
    ("resume", "pausing"): State.RUNNING,
    ("resume", "paused"): State.QUEUED,
    ("finish", "pausing"): State.RUNNING,
    ("finish", "paused"): State.QUEUED,
}


def bring_to(ledger, where):
    """A training in this state."""
    job_id = submit(ledger)
    if where == "new":
        return job_id
    held = claim(ledger)
    {
        "queued": lambda: ledger.release(held, crash=None),
        "running": lambda: None,
        "publishing": lambda: ledger.begin_publishing(held, {"artifact": "a"}),
        "cancelling": lambda: ledger.cancel(job_id),
        "pausing": lambda: ledger.pause(job_id),
        "paused": lambda: (ledger.pause(job_id), ledger.release(held, crash=None)),
        "succeeded": lambda: ledger.succeed(held, {}),
        "failed": lambda: ledger.fail(held, ERROR),
        "cancelled": lambda: ledger.cancelled(held),
    }[where]()
    return job_id


def say(ledger, verb, job_id, token=None):
    if verb == "patch":
        return ledger.patch(job_id, settings={"lr": 0.5}, token=token)
    return getattr(ledger, verb)(job_id, token=token)


@pytest.mark.parametrize(("verb", "where"), [(verb, where) for verb, answers in ANSWERS.items() for where in answers])
def test_each_verb_in_each_state_answers_moves_and_tells_once(ledger, verb, where):
    job_id = bring_to(ledger, where)
    before, written = ledger.state(job_id), events(ledger, job_id)
    outcome = ANSWERS[verb][where]
    assert say(ledger, verb, job_id, "token") == Answer(before, outcome)
    assert say(ledger, verb, job_id, "token") == Answer(before, outcome)  # redis-py sent it twice
    if (verb, outcome) == ("delete", "done"):
        with pytest.raises(JobNotFound):
            ledger.get(job_id)
        return
    after = AFTER.get((verb, where), before) if outcome == "done" else before
    assert ledger.state(job_id) is after
    orders = {"finish": "finish_requested", "checkpoint": "checkpoint_requested", "patch": "settings_changed"}
    told = [orders[verb]] if verb in orders else []
    told += [after] if after is not before else []
    assert types(ledger, job_id) == [kind for kind, _ in written] + (told if outcome == "done" else [])


@pytest.mark.parametrize("verb", ["finish", "checkpoint", "patch"])
def test_only_trainings_know_orders(ledger, verb):
    job_id = submit(ledger, Kind.IMPORT)
    assert say(ledger, verb, job_id) == Answer(State.QUEUED, "not_for_kind")
    assert types(ledger, job_id) == ["queued"]


@pytest.mark.parametrize("verb", ANSWERS)
def test_a_verb_to_an_unknown_job_says_so(ledger, verb):
    with pytest.raises(JobNotFound):
        say(ledger, verb, "job_none")
    with pytest.raises(JobNotFound):
        ledger.retry("job_none")


def test_the_holder_sees_that_its_orders_changed_and_reads_them(ledger):
    job_id = submit(ledger)
    held = claim(ledger)
    ledger.patch(job_id, settings={"lr": 0.30000000000000004, "patience": None})
    ledger.patch(job_id, settings={"epochs": 7})
    ledger.checkpoint(job_id)
    ledger.finish(job_id)
    assert ledger.renew(held).orders == ledger.look(held).orders == 4
    orders = ledger.orders(held)
    assert orders.settings == {"lr": 0.30000000000000004, "patience": None, "epochs": 7}
    assert (orders.version, orders.finish, orders.checkpoint) == (4, True, 1)
    assert ledger.get(job_id).orders == orders
    ledger.release(held, crash=None)
    assert claim(ledger).orders == orders
    with pytest.raises(LeaseLost):
        ledger.orders(held)


def test_a_change_that_changes_nothing_is_no_event(ledger):
    job_id = submit(ledger)
    change = {"settings": {"lr": 0.1}, "priority": Priority.HIGH}
    assert ledger.patch(job_id, **change).outcome == "done"
    assert ledger.patch(job_id, **change).outcome == "unchanged"
    assert ledger.patch(job_id, settings={}).outcome == "unchanged"
    assert events(ledger, job_id)[1:] == [("settings_changed", {"settings": {"lr": 0.1}, "priority": "high"})]


def test_a_change_that_arrives_again_late_does_not_undo_a_newer_one(ledger):
    job_id = submit(ledger)
    ledger.patch(job_id, settings={"lr": 0.1}, token="first")
    ledger.patch(job_id, settings={"lr": 0.2}, token="second")
    assert ledger.patch(job_id, settings={"lr": 0.1}, token="first").outcome == "done"
    assert ledger.get(job_id).orders.settings == {"lr": 0.2}


def test_each_request_for_a_checkpoint_counts_once(ledger):
    job_id = submit(ledger)
    for token in ("a", "a", "b"):
        ledger.checkpoint(job_id, token)
    assert ledger.get(job_id).orders.checkpoint == 2
    assert events(ledger, job_id)[1:] == [("checkpoint_requested", {"number": n}) for n in (1, 2)]


def test_pausing_takes_the_job_out_of_the_queue_and_resuming_puts_it_behind_the_others(ledger):
    first, second = submit(ledger), submit(ledger)
    ledger.pause(first)
    assert ledger.due(Lane.DEVICE) == 1
    ledger.resume(first)
    assert [claim(ledger).job_id for _ in range(2)] == [second, first]
    assert events(ledger, first)[1:3] == [("paused", {}), ("queued", {"reason": "resumed"})]


def test_a_pausing_job_whose_process_stopped_or_died_is_paused(ledger):
    for crash in (None, ERROR):
        job_id = submit(ledger)
        held = claim(ledger)
        ledger.pause(job_id)
        assert ledger.look(held).state is State.PAUSING
        assert ledger.release(held, crash=crash) is State.PAUSED
        assert ledger.get(job_id).crashes == (1 if crash else 0)
        assert claim(ledger) is None
    job_id = submit(ledger)
    claim(ledger)
    ledger.pause(job_id)
    assert ledger.expire(lease_is_past(ledger, job_id), owner_is_dead=False)
    assert ledger.state(job_id) is State.PAUSED


def test_a_job_resumed_while_it_was_being_paused_is_queued_when_its_process_has_stopped(ledger):
    job_id = submit(ledger)
    held = claim(ledger)
    ledger.pause(job_id)
    ledger.resume(job_id)
    assert ledger.look(held).state is State.RUNNING
    assert ledger.release(held, crash=None) is State.QUEUED


def test_a_job_that_publishes_while_it_is_paused_succeeds(ledger):
    job_id = submit(ledger)
    held = claim(ledger)
    ledger.pause(job_id)
    assert ledger.begin_publishing(held, {"artifact": "a"})
    assert ledger.cancel(job_id).outcome == "publishing"
    assert ledger.succeed(held, {"model": "m"}) is State.SUCCEEDED


def test_resuming_gives_a_job_that_kept_crashing_three_more_tries(ledger):
    job_id = submit(ledger)
    for _ in range(2):
        ledger.release(claim(ledger), crash=ERROR)
        due_now(ledger, job_id)
    ledger.pause(job_id)
    ledger.resume(job_id)
    for expected in (State.QUEUED, State.QUEUED, State.FAILED):
        assert ledger.release(claim(ledger), crash=ERROR) is expected
        if expected is State.QUEUED:
            due_now(ledger, job_id)


def test_finishing_a_paused_training_wakes_it_once_more_for_that(ledger):
    job_id = bring_to(ledger, "paused")
    ledger.finish(job_id)
    held = claim(ledger)
    assert held.orders.finish
    ledger.pause(job_id)
    ledger.release(held, crash=None)
    assert ledger.finish(job_id).outcome == "done"  # it is asked already, but sleeps again
    assert claim(ledger).job_id == job_id
    assert types(ledger, job_id).count("finish_requested") == 1


def test_a_retry_is_a_new_job_with_the_same_wishes_and_the_old_one_stays_as_it_ended(ledger):
    webhook = Webhook(url="https://example.org")
    wishes = {"priority": Priority.LOW, "max_seconds": 60.0, "webhook": webhook}
    old = ledger.submit(Kind.TRAIN, {"dataset": "ds_1"}, **wishes).job_id
    ledger.fail(claim(ledger), ERROR)
    told = types(ledger, old)
    first, again = ledger.retry(old), ledger.retry(old)
    assert (first.created, again.created, again.job_id) == (True, False, first.job_id)
    new = ledger.get(first.job_id)
    assert (new.spec, new.kind, new.priority) == ({"dataset": "ds_1"}, Kind.TRAIN, Priority.LOW)
    assert (new.max_seconds, new.webhook, new.retry_of) == (60.0, webhook, old)
    assert (ledger.get(old).state, ledger.get(old).retried_as) == (State.FAILED, new.id)
    assert types(ledger, old) == told
    assert events(ledger, new.id) == [("queued", {"reason": "retried", "retry_of": old})]
    assert claim(ledger).retry_of == old


@pytest.mark.parametrize("where", ["new", "running", "pausing", "paused", "cancelling", "succeeded"])
def test_what_has_not_failed_cannot_be_retried(ledger, where):
    job_id = bring_to(ledger, where)
    with pytest.raises(RetryRefused) as refused:
        ledger.retry(job_id)
    assert refused.value.state is ledger.state(job_id)
    assert len(ledger.page(limit=9)[0]) == 1


def test_deleting_leaves_nothing_behind_and_a_late_repetition_makes_no_second_job(ledger, redis):
    webhook = Webhook(url="https://example.org")
    arguments = {"idempotency": ("key", "digest"), "webhook": webhook}
    job_id = ledger.submit(Kind.TRAIN, {}, **arguments).job_id
    ledger.cancel(job_id)
    assert ledger.redis.zcard(keys.DELIVERIES) == 1
    ledger.delete(job_id)
    left = [key for key in redis.scan_iter("*") if redis.ttl(key) < 0]
    assert left == [keys.LAST_CREATED]
    again = ledger.submit(Kind.TRAIN, {}, **arguments)
    assert (again.job_id, again.created) == (job_id, False)
    with pytest.raises(JobNotFound):
        ledger.get(job_id)


def test_deleting_a_retry_lets_the_old_job_be_tried_again(ledger):
    old = ended(ledger)
    again = ledger.retry(old).job_id
    ledger.cancel(again)
    ledger.delete(again)
    assert ledger.get(old).retried_as is None
    assert ledger.retry(old).created


def test_what_is_just_tried_again_is_not_deleted_nor_what_the_last_of_several_tries_began_with(ledger):
    first = ended(ledger)
    second = ledger.retry(first).job_id
    assert ledger.delete(first) == Answer(State.CANCELLED, REFUSED)
    ledger.cancel(second)
    third = ledger.retry(second).job_id
    assert ledger.delete(first) == ledger.delete(second) == Answer(State.CANCELLED, REFUSED)
    ledger.cancel(third)
    assert [ledger.delete(each).outcome for each in (first, second, third)] == ["done"] * 3


def test_deleting_one_of_several_tries_makes_its_neighbours_neighbours(ledger, redis):
    """So that the first, whose files the last one needs, is not deleted under it."""
    first = ended(ledger)
    second = ledger.retry(first).job_id
    ledger.cancel(second)
    third = ledger.retry(second).job_id
    ledger.cancel(third)
    for each in (first, second, third):
        ledger.archived(each, retried_as=ledger.get(each).retried_as)
    assert ledger.delete(second).outcome == "done"
    assert (ledger.get(first).retried_as, ledger.get(third).retry_of) == (third, first)
    assert set(ledger.unarchived()) == {first, third}  # what is on disk says otherwise
    assert ledger.retry(first).job_id == third
    fourth = ledger.retry(third).job_id
    assert ledger.delete(first) == Answer(State.CANCELLED, REFUSED)
    ledger.cancel(fourth)
    assert ledger.delete(first).outcome == "done"
