"""Webhook deliveries: which are due, who is at them, and how each attempt went.

A state that somebody wants to be told of puts its delivery down in the same step (`announce` in
`jobs/lua/prelude.lua`). Whoever takes one has it for a while; when he dies it is due again. So each is attempted at
least once, always under the same id.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import orjson
from pydantic import BaseModel, ConfigDict
from redis import Redis

from jobs import keys, scripts
from jobs.model import Moment, State

LOG_LENGTH = 100  # attempts of one job that are kept


@dataclass(frozen=True)
class Delivery:
    """One message that is due, taken by this process until `lease` (ms of Redis's clock)."""

    job_id: str
    #: Id of the event that it tells of; with the job's id, the message's own.
    event_id: str
    state: State
    attempts: int
    lease: int

    @property
    def message_id(self) -> str:
        return f"{self.job_id}.{self.event_id}"


class Outcome(StrEnum):
    #: The receiver answered with 2xx.
    DELIVERED = "delivered"
    #: It did not, and will be asked again at `next_at`.
    RETRY = "retry"
    #: It never did, and is not asked again.
    GIVEN_UP = "given_up"
    #: It answered 410: it wants to hear no more.
    GONE = "gone"


class Attempt(BaseModel):
    """One attempt, as the log holds it."""

    model_config = ConfigDict(frozen=True)

    delivery: str
    state: State
    attempt: int
    at: Moment
    outcome: Outcome
    #: The receiver's status, or None and the `error` that stood in the way.
    status: int | None = None
    error: str | None = None
    ms: int
    next_at: Moment | None = None


@dataclass(frozen=True)
class Pending:
    """A delivery that is still to come, or just under way."""

    delivery: str
    due_at: datetime


_FOLDER = Path(__file__).parent / "lua"


@cache
def _source(name: str) -> str:
    return scripts.source("deliveries_prelude") + (_FOLDER / f"deliveries_{name}.lua").read_text()


class Deliveries:
    """All methods raise `redis.RedisError` when Redis cannot be reached; none leaves anything half done."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._take, self._end, self._repeat = (
            redis.register_script(_source(name)) for name in ("take", "end", "repeat")
        )

    def take(self, *, limit: int, visible_ms: int) -> list[Delivery]:
        """At most `limit` deliveries that are due, the longest due first; each is due again after `visible_ms`."""
        return [
            Delivery(job_id, event_id, State(state), int(attempts), int(lease))
            for job_id, event_id, state, attempts, lease in self._take(args=[limit, visible_ms])
        ]

    def done(self, delivery: Delivery, outcome: Outcome, *, status: int | None, error: str | None, ms: int) -> bool:
        """Write the last attempt down. False when somebody else has the delivery by now, and nothing was written."""
        return self._ended(delivery, "", {"outcome": outcome, "status": status, "error": error, "ms": ms})

    def again(self, delivery: Delivery, *, pause_ms: int, status: int | None, error: str | None, ms: int) -> bool:
        """Write an attempt down; the next is due in `pause_ms`. False as in `done`."""
        entry = {"outcome": Outcome.RETRY, "status": status, "error": error, "ms": ms}
        return self._ended(delivery, pause_ms, entry)

    def _ended(self, delivery: Delivery, pause_ms: int | Literal[""], entry: dict[str, Any]) -> bool:
        said = {name: value for name, value in entry.items() if value is not None}
        text = orjson.dumps({"delivery": delivery.event_id, "state": delivery.state, **said}).decode()
        return bool(
            self._end(args=[delivery.job_id, delivery.event_id, delivery.lease, str(pause_ms), text, LOG_LENGTH])
        )

    def repeat(self, job_id: str, event_id: str) -> Literal["again", "sending", "unknown"]:
        """Make a delivery due now, whatever became of it. Asking twice changes nothing more."""
        return cast("Literal['again', 'sending', 'unknown']", self._repeat(args=[job_id, event_id]))

    def log(self, job_id: str) -> list[Attempt]:
        """The newest attempts, newest first; empty also for an unknown job."""
        entries = cast("list[str]", self._redis.lrange(keys.deliveries(job_id), 0, LOG_LENGTH - 1))
        return [Attempt.model_validate_json(entry) for entry in entries]

    def pending(self, job_id: str) -> list[Pending]:
        """What is still to be delivered for a job, oldest event first."""
        announced = str(self._redis.hget(keys.job(job_id), "announced") or "").split()
        with self._redis.pipeline(transaction=False) as pipe:
            for event_id in announced:
                pipe.zscore(keys.DELIVERIES, f"{job_id} {event_id}")
            due = cast("list[float | None]", pipe.execute())
        return [
            Pending(event_id, datetime.fromtimestamp(at / 1000, UTC))
            for event_id, at in zip(announced, due, strict=True)
            if at is not None
        ]
