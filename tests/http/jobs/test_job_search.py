"""Lists of jobs that are filtered: bounded in time, and in nobody's way."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
from edge_kit import Server, own_redis, serving

from app.services import jobs
from app.services.ledger import AsyncLedger
from jobs.ledger import Ledger
from jobs.model import Kind
from jobs.redis import connect
from store import redis_account
from store.layout import Layout
from store.settings import Settings


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with twenty cancelled jobs; the oldest is of the model `rare`."""
    layout = Layout(tmp_path_factory.mktemp("search") / "data").create()
    url = redis_account.url(layout)
    with own_redis(layout), serving(Settings(data=layout.root, redis_url=url)) as server:
        redis = connect(url)
        ledger = Ledger(redis)
        for number in range(20):
            spec = {"model": "common@1" if number else "rare@1"}
            ledger.cancel(ledger.submit(Kind.EVALUATE, spec).job_id)
        redis.close()
        yield server


def test_a_search_whose_time_is_over_answers_with_what_it_found_and_where_it_goes_on(filled, monkeypatch):
    monkeypatch.setattr(jobs, "_SEARCH_SECONDS", 0.0)
    query, found, empty = {"model": "rare", "limit": 1}, [], 0
    while True:
        page = filled.http.get("/v1/jobs", params=query).raise_for_status().json()
        found += page["data"]
        empty += page["has_more"] and not page["data"]
        if not page["has_more"]:
            break
        query["after"] = page["next"]
    assert [job["spec"]["model"] for job in found] == ["rare@1"]
    assert empty > 1


def test_searches_leave_the_threads_to_short_questions_and_keep_their_places_to_their_ends(redis_layout):
    """Eight that take long, and nobody waits for the first ones any more."""
    go_on, begun = threading.Event(), threading.Semaphore(0)

    def long(_: Ledger) -> None:
        begun.release()
        go_on.wait(20)

    async def main() -> tuple[float, int]:
        ledger = AsyncLedger(redis_account.url(redis_layout))
        searches = [asyncio.create_task(ledger.search(long)) for _ in range(8)]
        for _ in range(2):
            await asyncio.to_thread(begun.acquire, timeout=10)
        for search in searches[:2]:
            search.cancel()
        began = time.monotonic()
        await ledger.read(lambda known: known.redis.ping())
        took = time.monotonic() - began
        await asyncio.sleep(0.1)
        more = sum(begun.acquire(blocking=False) for _ in range(8))
        go_on.set()
        await asyncio.gather(*searches, return_exceptions=True)
        ledger.close()
        return took, more

    took, more = asyncio.run(main())
    assert took < 0.5
    assert more == 0
