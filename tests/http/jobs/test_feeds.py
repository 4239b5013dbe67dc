"""The pure parts of live events: the feed's memory, the choice of a rendering, the order of ids."""

import asyncio
from contextlib import aclosing, suppress
from datetime import UTC, datetime

import pytest
from edge_kit import Server, problem, train

from app.event_responses import choose
from app.problems import UnavailableError
from app.services import feeds
from app.services.feeds import _HELD, Feed, Feeds
from jobs.event_file import order
from jobs.ledger import Ledger
from jobs.model import Event, Kind
from store.settings import Settings


def event(number: int) -> Event:
    return Event(id=f"5-{number}", type="log", at=datetime.now(UTC), data={})


def test_a_feed_gives_what_is_above_an_id():
    feed = Feed("5-0")
    feed.push([event(number) for number in range(1, 12)])
    assert [each.id for each in feed.after("5-9") or []] == ["5-10", "5-11"]
    assert feed.after("5-11") == []
    assert feed.after("9-0") == []
    assert feed.cursor == "5-11"


def test_a_feed_holds_only_its_newest_events_and_knows_what_it_has_lost():
    feed = Feed("5-0")
    feed.push([event(number) for number in range(1, _HELD + 11)])
    assert feed.after("5-9") is None
    assert len(feed.after("5-10") or []) == _HELD
    assert feed.since == "5-10"


def test_a_push_wakes_whoever_waits():
    feed = Feed("0-0")
    waiting = feed.changed
    feed.push([])
    assert waiting.is_set()
    assert not feed.changed.is_set()


def test_event_ids_are_ordered_as_numbers_not_as_text():
    assert sorted(["10-2", "9-11", "10-10", "9-2"], key=order) == ["9-2", "9-11", "10-2", "10-10"]


@pytest.mark.parametrize(
    ("accept", "rendering"),
    [
        ("", "sse"),
        ("*/*", "sse"),
        ("application/json", "page"),
        ("application/json, text/plain, */*", "page"),
        ("text/event-stream;q=0.5, application/json", "page"),
        ("text/html, application/*;q=0.9", "page"),
        ("text/event-stream", "sse"),
        ("text/event-stream, */*;q=0.1", "sse"),
        ("application/json;q=0.1, */*", "sse"),
        ("application/json;q=0.5, application/x-ndjson", "ndjson"),
        ("Text/Event-Stream; charset=utf-8", "sse"),
        ("application/json;q=0, text/event-stream;q=0.2", "sse"),
        ("text/html", None),
        ("text/event-stream;q=x", None),
    ],
)
def test_the_accept_header_chooses_the_rendering(accept, rendering):
    assert choose(accept, resuming=False) == rendering


@pytest.mark.parametrize(
    ("accept", "rendering"),
    [
        ("", "sse"),
        ("*/*", "sse"),
        ("application/json, */*;q=0.1", "sse"),
        ("application/x-ndjson, text/event-stream;q=0.5", "sse"),
        ("application/json", "page"),
        ("application/x-ndjson", "ndjson"),
        ("text/html", None),
    ],
)
def test_who_resumes_gets_a_stream_unless_accept_rules_it_out(accept, rendering):
    assert choose(accept, resuming=True) == rendering


async def stored(_: str, *, after: str, limit: int) -> tuple[list[Event], bool, bool]:
    """A backlog in which nothing ever happens."""
    return [], False, False


def test_silence_is_told_so_that_a_dead_connection_is_noticed(settings: Settings):
    async def first() -> Event | None:
        live = Feeds(str(settings.redis_url), stored)
        async with live.running(), aclosing(live.follow("job_silent", after="0-0", keep_alive=0.05)) as events:
            return await anext(events)

    assert asyncio.run(first()) is None


def test_followers_are_bounded(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(feeds, "MAX_FOLLOWERS", 1)

    async def two() -> None:
        live = Feeds(str(settings.redis_url), stored)
        async with live.running(), aclosing(live.follow("job_a", after="0-0", keep_alive=0.05)) as events:
            await anext(events)
            await anext(live.follow("job_b", after="0-0"))

    with pytest.raises(UnavailableError):
        asyncio.run(two())


def test_a_stream_beyond_them_is_a_503_of_its_own_and_a_page_is_none(
    server: Server, dataset: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(feeds, "MAX_FOLLOWERS", 0)
    url = f"/v1/jobs/{train(server.http, dataset).json()['id']}/events"
    for accept in ("text/event-stream", "application/x-ndjson"):
        problem(server.http.get(url, headers={"Accept": accept}), 503, "too_many_streams")
    assert server.http.get(url, headers={"Accept": "application/json"}).status_code == 200


def test_a_follower_whose_cursor_lies_before_the_feed_looks_into_the_ledger_now_and_then_only(settings: Settings):
    looks = 0

    async def counted(job_id: str, *, after: str, limit: int) -> tuple[list[Event], bool, bool]:
        nonlocal looks
        looks += 1
        return await stored(job_id, after=after, limit=limit)

    async def follow(live: Feeds, after: str) -> None:
        async with aclosing(live.follow("job_quiet", after=after, keep_alive=0.05)) as events:
            async for _ in events:
                pass

    async def main() -> int:
        live = Feeds(str(settings.redis_url), counted)
        async with live.running(), aclosing(live.follow("job_quiet", after="9-0", keep_alive=0.05)) as newer:
            await anext(newer)  # its feed begins at 9-0
            before = looks
            with suppress(TimeoutError):
                await asyncio.wait_for(follow(live, "5-0"), 1.2)
            return looks - before

    assert 1 <= asyncio.run(main()) <= 4


def test_a_follower_whose_cursor_lies_before_the_feed_hears_of_the_silence_too(settings: Settings):
    """As when somebody else waits for the job's end meanwhile, for which the last minute is enough."""

    async def first_two() -> list[Event | None]:
        live = Feeds(str(settings.redis_url), stored)
        async with live.running(), aclosing(live.follow("job_quiet", after="9-0", keep_alive=0.05)) as newer:
            await anext(newer)  # its feed begins at 9-0
            async with asyncio.timeout(10), aclosing(live.follow("job_quiet", after="5-0", keep_alive=0.05)) as events:
                return [await anext(events) for _ in range(2)]

    assert asyncio.run(first_two()) == [None, None]


def test_a_long_poll_needs_no_old_history(server: Server, ledger: Ledger):
    job_id = ledger.submit(Kind.IMPORT, {"dataset": "ds_gone"}).job_id
    ledger.redis.xtrim(f"rn:job:{job_id}:events", maxlen=0)
    assert server.http.get(f"/v1/jobs/{job_id}", params={"wait": 0.1}).json()["state"] == "queued"
    ledger.cancel(job_id)
    assert server.http.get(f"/v1/jobs/{job_id}", params={"wait": 20}).json()["state"] == "cancelled"
