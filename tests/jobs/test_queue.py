"""Who is next, and what a page of jobs shows."""

from datetime import UTC, datetime

import pytest
from ledger_kit import ERROR, claim, lease_is_past, submit

from jobs import keys
from jobs.answers import JobNotFound
from jobs.model import Kind, Lane, Priority, State


def test_a_lane_takes_high_before_normal_before_low_and_the_oldest_of_each_first(ledger):
    order = [Priority.LOW, Priority.NORMAL, Priority.HIGH] * 2
    low1, normal1, high1, low2, normal2, high2 = [submit(ledger, priority=each) for each in order]
    expected = [high1, high2, normal1, normal2, low1, low2]
    assert ledger.positions([*expected, "job_none"]) == {name: n for n, name in enumerate(expected, start=1)}
    assert [claim(ledger).job_id for _ in range(6)] == expected


def test_a_job_that_waits_after_a_crash_holds_up_nobody(ledger):
    crashed = submit(ledger, priority=Priority.HIGH)
    ledger.release(claim(ledger), crash=ERROR)
    other = submit(ledger, priority=Priority.LOW)
    assert claim(ledger).job_id == other
    assert ledger.state(crashed) is State.QUEUED


def test_changing_the_priority_moves_a_queued_job_and_it_keeps_its_turn_within_the_class(ledger):
    first, second, third = submit(ledger), submit(ledger, priority=Priority.HIGH), submit(ledger, priority=Priority.LOW)
    ledger.patch(first, settings={}, priority=Priority.HIGH)
    assert ledger.positions([first, second, third]) == {first: 1, second: 2, third: 3}
    ledger.patch(first, settings={}, priority=Priority.LOW)
    assert ledger.positions([first, second, third]) == {second: 1, first: 2, third: 3}


def test_a_running_job_keeps_its_new_priority_for_when_it_is_queued_again(ledger):
    job_id = submit(ledger)
    held = claim(ledger)
    ledger.patch(job_id, settings={}, priority=Priority.LOW)
    ledger.release(held, crash=None)
    assert ledger.redis.zrange(keys.due(Lane.DEVICE, Priority.LOW), 0, -1) == [job_id]
    assert ledger.redis.zcard(keys.due(Lane.DEVICE)) == 0


def test_what_was_stopped_or_lost_its_worker_keeps_its_place_and_what_crashed_waits(ledger):
    stopped, lost, crashed, *others = [submit(ledger) for _ in range(6)]
    held = {each.job_id: each for each in (claim(ledger) for _ in range(3))}
    ledger.release(held[crashed], crash=ERROR)
    ledger.expire(lease_is_past(ledger, lost), owner_is_dead=True)
    ledger.release(held[stopped], crash=None)
    assert [claim(ledger).job_id for _ in range(5)] == [stopped, lost, *others]
    assert claim(ledger) is None


def test_a_job_that_has_only_to_be_published_comes_before_all_others_of_its_class(ledger):
    earlier, publishing = submit(ledger), submit(ledger)
    waits = claim(ledger)
    held = claim(ledger)
    ledger.release(waits, crash=None)
    assert ledger.begin_publishing(held, {"artifact": "a"})
    ledger.expire(lease_is_past(ledger, publishing), owner_is_dead=True)
    assert [claim(ledger).job_id for _ in range(2)] == [publishing, earlier]


def test_only_queued_jobs_have_a_place(ledger):
    job_id, waiting = submit(ledger), submit(ledger)
    imported = submit(ledger, Kind.IMPORT)
    claim(ledger)
    assert ledger.position(job_id) is None
    assert ledger.position(waiting) == ledger.position(imported) == 1
    assert ledger.position("job_none") is None
    assert ledger.positions([]) == {}


def test_pages_of_several_states_hold_every_job_once_newest_first(ledger):
    ids = [submit(ledger, priority=list(Priority)[n % 3]) for n in range(12)]
    for job_id in ids[::2]:
        ledger.cancel(job_id)
    ledger.pause(ids[1])
    seen, after, more = [], None, True
    while more:
        page, more = ledger.page(limit=4, after=after, state={State.CANCELLED, State.QUEUED})
        seen += [job.id for job in page]
        after = page[-1].id
    assert seen == [job_id for job_id in reversed(ids) if job_id != ids[1]]
    low, more = ledger.page(limit=10, state=[State.CANCELLED, State.PAUSED], priority=Priority.LOW)
    assert [job.id for job in low] == [ids[8], ids[2]]
    assert not more


def test_a_page_can_begin_at_a_moment(ledger):
    submit(ledger)
    second = ledger.get(submit(ledger))
    assert [job.id for job in ledger.page(limit=9, since=second.created_at)[0]] == [second.id]
    assert ledger.page(limit=9, since=datetime(2100, 1, 1, tzinfo=UTC)) == ([], None)


def test_a_cursor_that_nobody_knows_is_refused(ledger):
    submit(ledger)
    with pytest.raises(JobNotFound):
        ledger.page(limit=1, after="job_none")
