"""Looking through many jobs for few takes few questions, and as long as it may."""

import time

import pytest
from ledger_kit import ended

from jobs import keys
from jobs.ledger import Ledger
from jobs.model import Kind, Priority, State

MANY = 3000


@pytest.fixture
def many(ledger: Ledger) -> str:
    """The oldest job, which has been cancelled like the 3,000 after it; those are of another dataset."""
    first = ended(ledger, dataset="ds_rare")
    record = ledger.redis.hgetall(keys.job(first))
    created = float(record["created_at"])
    with ledger.redis.pipeline(transaction=False) as pipe:
        for number in range(1, MANY + 1):
            job_id, at = f"job_{number}", f"{created + number:.3f}"
            pipe.hset(keys.job(job_id), mapping={**record, "id": job_id, "created_at": at, "spec": "{}"})
            for index in (keys.ALL, keys.state(State.CANCELLED)):
                pipe.zadd(index, {job_id: at})
        pipe.execute()
    return first


def rare(job):
    return job.spec.get("dataset") == "ds_rare"


def test_a_search_among_many_jobs_asks_for_hundreds_at_a_time(ledger, many, redis):
    redis.config_resetstat()
    assert ledger.page(limit=1, only=lambda _: False) == ([], None)
    rounds = redis.info("commandstats")["cmdstat_zrevrangebyscore"]["calls"]
    assert rounds <= MANY / 500 + 3
    assert [job.id for job in ledger.page(limit=1, only=rare)[0]] == [many]


def test_a_page_of_all_jobs_reads_no_more_than_it_shows(ledger, many, redis):
    redis.config_resetstat()
    page, following = ledger.page(limit=5)
    assert [job.id for job in page] == [f"job_{number}" for number in range(MANY, MANY - 5, -1)]
    assert redis.info("commandstats")["cmdstat_hgetall"]["calls"] == 6
    assert [job.id for job in ledger.page(limit=1, after=following)[0]] == [f"job_{MANY - 5}"]


def test_a_search_whose_time_is_over_says_where_to_go_on_and_misses_nothing(ledger, many):
    found, after, pages = [], None, 0
    while True:
        page, after = ledger.page(limit=1, after=after, only=rare, until=time.monotonic())
        found, pages = found + [job.id for job in page], pages + 1
        if after is None:
            break
    assert found == [many]
    assert pages > 100  # each looked at two jobs, the least there is


def test_a_search_that_is_cut_off_goes_on_within_several_states_too(ledger, many):
    wanted = {"state": {State.CANCELLED, State.QUEUED}, "kind": Kind.TRAIN, "priority": Priority.NORMAL}
    page, after = ledger.page(limit=700, only=lambda job: job.id != "job_2500", until=0.0, **wanted)
    assert (len(page), after is not None) == (700, True)
    rest, _ = ledger.page(limit=1, after=after, **wanted)
    assert [job.id for job in rest] == [f"job_{MANY - 701}"]
