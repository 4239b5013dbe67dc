"""Live events: one Redis connection of this process tails the streams of every job that somebody follows.

Each followed job has a feed: its newest events, at most 256. A follower reads its backlog from the ledger, then from
the feed, always by event id, so it can neither miss an event nor see one twice. A follower that is too slow for the
feed reads from the ledger again: it costs nobody else anything, and memory is bounded by the feeds.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import Any, Protocol, cast

from redis import RedisError
from redis.asyncio import Redis as AsyncRedis

from app.problems import UnavailableError
from jobs import keys
from jobs.event_file import order
from jobs.model import Event
from jobs.records import ends, event
from jobs.redis import connect_async

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 15.0
_HELD = 256  # events of one feed
_PAGE = 500
_BLOCK_SECONDS = 5.0
_RETRY_SECONDS = 0.5
MAX_FOLLOWERS = 500

Entries = dict[str, list[tuple[str, dict[str, str]]]]  # stream → (event id, its fields)


class Closing(Exception):
    """This process is stopping; the history goes on, and its reader comes back to another one with his last id."""


class Backlog(Protocol):
    """Reads from the ledger: (events above `after`, whether there are more, whether the job had ended before)."""

    async def __call__(self, job_id: str, *, after: str, limit: int) -> tuple[list[Event], bool, bool]: ...


class Feed:
    """The newest events of one job: all those above `since`, up to `cursor`."""

    def __init__(self, cursor: str) -> None:
        self.since = self.cursor = cursor
        self.followers = 0
        self.changed = asyncio.Event()
        self._events: deque[Event] = deque()
        self._lost = False

    def push(self, events: list[Event]) -> None:
        for each in events:
            if len(self._events) == _HELD:
                self.since = self._events.popleft().id
            self._events.append(each)
            self.cursor = each.id
        self.changed.set()
        self.changed = asyncio.Event()

    def reach_back(self, cursor: str) -> bool:
        """Begin at an earlier `cursor`, while nothing is known yet; whether that changes anything."""
        if self._events or order(cursor) >= order(self.since):
            return False
        self.since = self.cursor = cursor
        return True

    def lose(self) -> None:
        """From now on this feed knows nothing, and whoever waits for it is woken to learn that."""
        self._lost = True
        self.push([])

    def after(self, event_id: str) -> list[Event] | None:
        """The events above `event_id`, or None where some of them have left the feed."""
        known = order(event_id)
        if self._lost or known < order(self.since):
            return None
        fresh: list[Event] = []
        for each in reversed(self._events):  # what is new is at the end and mostly one
            if order(each.id) <= known:
                break
            fresh.append(each)
        fresh.reverse()
        return fresh


class Feeds:
    def __init__(self, redis_url: str, backlog: Backlog) -> None:
        self._redis_url = redis_url
        self._backlog = backlog
        self._feeds: dict[str, Feed] = {}
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._followers = 0

    @property
    def followers(self) -> int:
        return self._followers

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The tailer lives as long as this context; `close` ends every follower."""
        tailer = asyncio.create_task(self._tail(), name="event-tailer")
        try:
            yield
        finally:
            self.close()
            tailer.cancel()
            with suppress(asyncio.CancelledError):
                await tailer

    def check_room(self) -> None:
        """Raises UnavailableError for too many followers; asked before an answer begins, it is a problem of its own."""
        if self._followers >= MAX_FOLLOWERS:
            raise UnavailableError(
                "too_many_streams", f"{MAX_FOLLOWERS} event streams are open.", hint="Ask for JSON pages instead."
            )

    def close(self) -> None:
        self._closing.set()
        for feed in self._feeds.values():
            feed.push([])

    async def follow(
        self, job_id: str, *, after: str, keep_alive: float = KEEP_ALIVE_SECONDS
    ) -> AsyncGenerator[Event | None, None]:
        """Every event above `after` in order, to the job's last; None after each `keep_alive` seconds of silence.

        While Redis is away it goes on silently. Raises UnavailableError for too many followers, Closing when the
        process stops before the job's end.
        """
        self.check_room()
        self._followers += 1
        try:
            async with aclosing(self._stored_then_live(job_id, after, keep_alive)) as events:
                async for each in events:
                    yield each
                    if each is not None and ends(each.type):
                        return
        finally:
            self._followers -= 1

    async def _stored_then_live(
        self, job_id: str, cursor: str, keep_alive: float
    ) -> AsyncGenerator[Event | None, None]:
        told = time.monotonic()
        while not self._closing.is_set():
            try:
                events, more, ended = await self._backlog(job_id, after=cursor, limit=_PAGE)
            except UnavailableError:
                yield None
                await self._pause()
                continue
            for each in events:
                cursor, told = each.id, time.monotonic()
                yield each
            if more:
                continue
            if ended:
                return
            silent = True
            async with aclosing(self._live(job_id, cursor, keep_alive)) as live:
                async for fresh in live:
                    silent, told = False, time.monotonic()
                    cursor = fresh.id if fresh else cursor
                    yield fresh
            if silent:  # the feed begins behind this follower's cursor: look into the ledger now and then instead
                if time.monotonic() - told >= keep_alive:
                    told = time.monotonic()
                    yield None
                await self._pause()
        raise Closing

    async def _live(self, job_id: str, cursor: str, keep_alive: float) -> AsyncGenerator[Event | None, None]:
        """From the feed, until this follower has become too slow for it."""
        with self._joined(job_id, cursor) as feed:
            while not self._closing.is_set():
                changed = feed.changed
                fresh = feed.after(cursor)
                if fresh is None:
                    return
                for each in fresh:
                    cursor = each.id
                    yield each
                if not fresh:
                    try:
                        await asyncio.wait_for(changed.wait(), keep_alive)
                    except TimeoutError:
                        yield None

    @contextmanager
    def _joined(self, job_id: str, cursor: str) -> Iterator[Feed]:
        feed = self._feeds.get(job_id)
        if feed is None:
            feed = self._feeds[job_id] = Feed(cursor)
            self._wake.set()
        elif feed.reach_back(cursor):  # else who waits for a job's end, and needs the last minute only, decides for all
            self._wake.set()
        feed.followers += 1
        try:
            yield feed
        finally:
            feed.followers -= 1
            if feed.followers == 0 and self._feeds.get(job_id) is feed:
                del self._feeds[job_id]

    def _lose_all(self) -> None:
        """What was written meanwhile may have been trimmed already: followers read the history and join again."""
        lost, self._feeds = self._feeds, {}
        for feed in lost.values():
            feed.lose()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), _RETRY_SECONDS)

    async def _tail(self) -> None:
        """Read whatever comes on the followed streams, again from the start when somebody follows another one."""
        redis = connect_async(self._redis_url, block=_BLOCK_SECONDS)
        try:
            while True:
                self._wake.clear()
                streams = {keys.events(job_id): (job_id, feed) for job_id, feed in self._feeds.items()}
                if not streams:
                    await self._wake.wait()
                    continue
                cursors = {key: feed.cursor for key, (_, feed) in streams.items()}
                try:
                    entries = await self._read_or_wake(redis, cursors)
                except (RedisError, OSError) as error:
                    log.warning("the event tailer waits for Redis", extra={"reason": str(error)})
                    self._lose_all()
                    await self._pause()
                    continue
                for key, found in entries.items():
                    feed = streams[key][1]
                    if feed.cursor == cursors[key]:  # else it has reached back meanwhile, and is read from there
                        feed.push([event(entry_id, fields) for entry_id, fields in found])
        finally:
            await redis.aclose()

    async def _read_or_wake(self, redis: AsyncRedis, cursors: dict[str, str]) -> Entries:
        """What lies behind the cursors, as soon as there is something; nothing when somebody follows another job."""
        streams = cast("dict[Any, Any]", cursors)
        reading = asyncio.ensure_future(redis.xread(streams, count=_PAGE, block=int(_BLOCK_SECONDS * 1000)))
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait([reading, waking], return_when=asyncio.FIRST_COMPLETED)
            return _entries(reading.result()) if reading.done() else {}
        finally:
            waking.cancel()
            reading.cancel()  # a cancelled read drops its connection and loses nothing: the cursors stay
            with suppress(asyncio.CancelledError, RedisError):
                await reading


def _entries(answer: object) -> Entries:
    """XREAD's answer in either version of Redis's protocol: pairs, or a map of lists within a list."""
    if isinstance(answer, dict):
        return {key: found[0] if found and isinstance(found[0], list) else found for key, found in answer.items()}
    return dict(cast("list[tuple[str, list[tuple[str, dict[str, str]]]]]", answer or []))
