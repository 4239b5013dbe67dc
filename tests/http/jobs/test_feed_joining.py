"""Who joins a feed is served by it, also where somebody else began it with a later cursor."""

import asyncio
from contextlib import aclosing, suppress

from app.services.feeds import Feed, Feeds
from jobs import keys
from jobs.ledger import Ledger
from jobs.model import Event
from store.settings import Settings


class Silent:
    """A backlog in which nothing ever happens, and how often it was asked. Who has looked once joins the feed next."""

    def __init__(self) -> None:
        self.looks = 0

    async def __call__(self, _: str, *, after: str, limit: int) -> tuple[list[Event], bool, bool]:
        self.looks += 1
        return [], False, False

    async def asked(self, times: int) -> None:
        while self.looks < times:  # noqa: ASYNC110 - only a counter moves
            await asyncio.sleep(0.005)
        await asyncio.sleep(0)  # the answer is there: now it is on the feed


def test_a_feed_reaches_back_only_while_it_is_empty():
    feed = Feed("9-0")
    assert not feed.reach_back("9-0")
    assert feed.reach_back("5-0")
    assert (feed.since, feed.cursor, feed.after("5-0")) == ("5-0", "5-0", [])
    assert not feed.reach_back("7-0")


def test_an_earlier_cursor_costs_the_ledger_no_looks(settings: Settings):
    silent = Silent()

    async def main() -> int:
        live = Feeds(str(settings.redis_url), silent)
        async with live.running(), aclosing(live.follow("job_quiet", after="9-0", keep_alive=0.05)) as newer:
            await anext(newer)
            before = silent.looks
            async with aclosing(live.follow("job_quiet", after="5-0", keep_alive=0.05)) as older:
                with suppress(TimeoutError):
                    async with asyncio.timeout(1.2):
                        async for _ in older:
                            pass
            return silent.looks - before

    assert asyncio.run(main()) == 1


def test_each_hears_what_lies_above_its_own_cursor(settings: Settings, ledger: Ledger):
    stream = keys.events("job_joined")

    async def main() -> tuple[list[str], list[str]]:
        silent = Silent()
        live = Feeds(str(settings.redis_url), silent)
        heard: dict[str, list[str]] = {"9-0": [], "5-0": []}

        async def listen(after: str) -> None:
            async with aclosing(live.follow("job_joined", after=after)) as events:
                async for each in events:
                    if each is not None:
                        heard[after].append(each.id)

        async with live.running(), asyncio.timeout(10):
            newer = asyncio.create_task(listen("9-0"))
            await silent.asked(1)
            older = asyncio.create_task(listen("5-0"))
            await silent.asked(2)
            for event_id, kind in (("7-0", "log"), ("10-0", "log"), ("11-0", "failed")):
                fields = {"type": kind, "data": "{}"}
                await asyncio.to_thread(ledger.redis.xadd, stream, fields, event_id)
            await asyncio.gather(newer, older)
        return heard["9-0"], heard["5-0"]

    try:
        assert asyncio.run(main()) == (["10-0", "11-0"], ["7-0", "10-0", "11-0"])
    finally:
        ledger.redis.delete(stream)


def test_an_earlier_cursor_than_a_feed_with_events_looks_into_the_ledger_now_and_then(
    settings: Settings, ledger: Ledger
):
    silent, stream = Silent(), keys.events("job_busy")

    async def main() -> int:
        live = Feeds(str(settings.redis_url), silent)
        async with live.running(), aclosing(live.follow("job_busy", after="9-0", keep_alive=5.0)) as newer:
            first = asyncio.create_task(anext(newer))
            await silent.asked(1)
            await asyncio.to_thread(ledger.redis.xadd, stream, {"type": "log", "data": "{}"}, "10-0")
            await first
            before = silent.looks
            async with aclosing(live.follow("job_busy", after="5-0", keep_alive=0.05)) as older:
                with suppress(TimeoutError):
                    async with asyncio.timeout(1.2):
                        async for _ in older:
                            pass
            return silent.looks - before

    try:
        assert 2 <= asyncio.run(main()) <= 4
    finally:
        ledger.redis.delete(stream)
