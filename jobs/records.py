"""Reading the ledger: records, pages, places in the queue, events."""

import math
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar, cast

import orjson
from redis import Redis

from jobs import keys, scripts
from jobs.answers import JobNotFound, Window
from jobs.cursor import cursor, milliseconds, place
from jobs.model import TERMINAL, Event, Job, Kind, Lane, Priority, State

LONGEST_PAUSE_MS = 60_000  # of a job that waits after a crash; prelude.lua has it too
_BATCH = 500  # jobs looked at in one round, once the first did not fill the page

_Choice = TypeVar("_Choice", bound=StrEnum)


class Records:
    """All methods raise `redis.RedisError` when Redis cannot be reached."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._scripts = scripts.register(redis)

    def _run(self, name: str, *args: str | float) -> Any:  # noqa: ANN401 - each script answers in its own shape
        return self._scripts[name](args=args)

    def get(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        check(job_id)
        record = self.redis.hgetall(keys.job(job_id))
        if not record:
            raise JobNotFound(job_id)
        return Job.model_validate(record)

    def state(self, job_id: str) -> State:
        """Raises JobNotFound."""
        check(job_id)
        found = self.redis.hget(keys.job(job_id), "state")
        if found is None:
            raise JobNotFound(job_id)
        return State(str(found))

    def page(
        self,
        *,
        limit: int,
        after: str | None = None,
        state: State | Collection[State] | None = None,
        kind: Kind | Collection[Kind] | None = None,
        priority: Priority | Collection[Priority] | None = None,
        since: datetime | None = None,
        only: Callable[[Job], bool] = lambda _: True,
        until: float = math.inf,
    ) -> tuple[list[Job], str | None]:
        """Jobs, newest first, created before `after` and not before `since`, those for which `only` holds; and the
        `after` of what follows, None at the end.

        `after` is a cursor (`jobs.cursor`), or the id of a job: raises JobNotFound where the ledger does not know that.
        From `until` (`time.monotonic()`) on it looks no further: there are then fewer jobs than `limit`, perhaps none,
        and what follows begins behind the last job that was looked at.
        """
        indices = [keys.ALL] if state is None else [keys.state(each) for each in State if each in _several(state)]
        kinds, priorities = (None if wanted is None else _several(wanted) for wanted in (kind, priority))
        below = "+inf" if after is None else f"({self._created(after)}"
        oldest = "-inf" if since is None else repr(since.timestamp() * 1000)
        found: list[Job] = []
        batch = limit + 1  # all that a page needs of which every job is
        while len(found) <= limit:
            looked_at = self._newest(indices, below, oldest, batch)
            if not looked_at:
                return found, None
            ids = [job_id for _, job_id in looked_at]
            last = looked_at[-1][0]
            below, batch = f"({last!r}", max(batch, _BATCH)
            found += [
                job
                for job in self._many(ids)
                if (kinds is None or job.kind in kinds)
                and (priorities is None or job.priority in priorities)
                and only(job)
            ]
            if len(found) <= limit and time.monotonic() >= until:
                return found, cursor(datetime.fromtimestamp(last / 1000, UTC), ids[-1])
        page = found[:limit]
        return page, cursor(page[-1].created_at, page[-1].id)

    def _created(self, after: str) -> str:
        if (behind := place(after)) is not None:
            return milliseconds(behind[0])
        created = self.redis.zscore(keys.ALL, after)
        if created is None:
            raise JobNotFound(after)
        return repr(float(created))

    def _newest(self, indices: list[str], below: str, oldest: str, limit: int) -> list[tuple[float, str]]:
        """The newest jobs of several indices, each with when it was created (ms): no two are of the same moment."""
        with self.redis.pipeline(transaction=True) as pipe:
            for index in indices:
                pipe.zrevrangebyscore(index, below, oldest, start=0, num=limit, withscores=True)
            answers = cast("list[list[tuple[str, float]]]", pipe.execute())
        return sorted({(created, job_id) for found in answers for job_id, created in found}, reverse=True)[:limit]

    def _many(self, ids: Sequence[str]) -> list[Job]:
        with self.redis.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hgetall(keys.job(job_id))
            return [Job.model_validate(record) for record in pipe.execute() if record]

    def position(self, job_id: str) -> int | None:
        """A queued job's place in its lane, 1 for the next; None for any other job."""
        return self.positions([job_id]).get(job_id)

    def positions(self, ids: Sequence[str]) -> dict[str, int]:
        """The places of those among the jobs that are queued."""
        places = self._run("positions", *ids) if ids else []
        return {job_id: int(place) for job_id, place in zip(ids, places, strict=True) if place}

    def count(self) -> dict[State, int]:
        return {state: int(self.redis.zcard(keys.state(state))) for state in State}

    def unfinished(self) -> int:
        """How many jobs have not ended."""
        return sum(int(self.redis.zcard(keys.state(state))) for state in State if state not in TERMINAL)

    def due(self, lane: Lane) -> int:
        """How many jobs of a lane could be claimed now."""
        now = self.clock()
        latest = max(now, float(self.redis.get(keys.LAST_CREATED) or 0)) + 1
        too_far = max(now + LONGEST_PAUSE_MS, latest)  # put down before the clock was set back
        queues = [keys.due(lane, priority) for priority in Priority]
        ranges: tuple[tuple[float | str, float | str], ...] = (("-inf", latest), (f"({too_far!r}", "+inf"))
        return sum(int(self.redis.zcount(queue, *each)) for queue in queues for each in ranges)

    def clock(self) -> float:
        """Redis's time, ms."""
        seconds, micros = self.redis.time()
        return float(seconds) * 1000 + float(micros) / 1000

    def window(self, job_id: str, *, after: str, limit: int) -> Window:
        """Events with ids above `after`, oldest first, as far as the stream goes back. All of one moment."""
        check(job_id)
        with self.redis.pipeline(transaction=True) as pipe:
            pipe.exists(keys.job(job_id))
            pipe.xrange(keys.events(job_id), "-", "+", 1)
            pipe.xrange(keys.events(job_id), f"({after}", "+", limit + 1)
            exists, oldest, entries = pipe.execute()
        if not exists:
            raise JobNotFound(job_id)
        found = [event(entry_id, fields) for entry_id, fields in entries[:limit]]
        return Window(oldest[0][0] if oldest else None, found, len(entries) > limit)

    def events(self, job_id: str, *, after: str = "0-0", limit: int = 100) -> tuple[list[Event], bool]:
        """Events of the stream, and whether there are more; older ones may be on disk (`jobs.archive.history`)."""
        window = self.window(job_id, after=after, limit=limit)
        return window.events, window.more


def check(job_id: str) -> None:
    """Only what can be an id becomes part of a key. Raises JobNotFound."""
    if not keys.is_id(job_id):
        raise JobNotFound(job_id)


def _several(wanted: _Choice | Collection[_Choice]) -> Collection[_Choice]:
    return (wanted,) if isinstance(wanted, StrEnum) else wanted


def event(entry_id: str, fields: dict[str, str]) -> Event:
    """An entry of a job's stream, read."""
    at = datetime.fromtimestamp(int(entry_id.partition("-")[0]) / 1000, UTC)
    return Event(id=entry_id, type=fields["type"], at=at, data=orjson.loads(fields["data"]))


def ends(kind: str) -> bool:
    """Whether an event of this type is a job's last."""
    return kind in TERMINAL
