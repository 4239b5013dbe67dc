"""Plans of trainings in Redis: a question, its answer, and answers that may be given again. Nothing of it is a job.

A question is a string with a time to live. The worker that takes it writes its answer over it while it is there, and
whoever asked looks at it now and then. What is lost with Redis is asked again.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import uuid4

import orjson
from redis import Redis

from jobs import keys

TASK = "resnetd.plan"
ANSWER_SECONDS = 90.0  # from the question on, for everything; on a machine with nothing else to do it takes ten
TAKE_SECONDS = 12.0  # from the question on, for a worker that is free
KNOWN_SECONDS = 3600.0  # for which an answer may be given again: the machine may be busier by then, or less


class PlanState(StrEnum):
    #: Asked; no worker has heard of it.
    ASKED = "asked"
    #: A worker is at it.
    TAKEN = "taken"
    #: `body` is the plan.
    ANSWERED = "answered"
    #: There is none; `body` is `{"code", "message", "hint", "passing"}`: whether asking again may help.
    REFUSED = "refused"


@dataclass(frozen=True)
class PlanEntry:
    state: PlanState
    body: dict[str, Any]


class Plans:
    """Every method raises RedisError where Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def ask(self, request: dict[str, Any]) -> str:
        """Write a question down; its id. Nobody hears of it by this alone."""
        plan_id = f"asked:{uuid4().hex}"
        self._set(plan_id, PlanState.ASKED, request, px=round(ANSWER_SECONDS * 1000))
        return plan_id

    def look(self, plan_id: str) -> PlanEntry | None:
        """None once its time is over, or nobody wants it any more."""
        found = self._redis.get(keys.plan(plan_id))
        if found is None:
            return None
        entry = orjson.loads(found)
        return PlanEntry(PlanState(entry["state"]), entry["body"])

    def take(self, plan_id: str) -> dict[str, Any] | None:
        """The question, for the worker that is to answer it; None where it is answered already, or too old."""
        entry = self.look(plan_id)
        if entry is None or entry.state is not PlanState.ASKED:
            return None
        self._set(plan_id, PlanState.TAKEN, {}, keepttl=True, xx=True)
        return entry.body

    def answer(self, plan_id: str, plan: dict[str, Any]) -> None:
        self._set(plan_id, PlanState.ANSWERED, plan, keepttl=True, xx=True)

    def refuse(self, plan_id: str, *, code: str, message: str, hint: str, passing: bool) -> None:
        body = {"code": code, "message": message, "hint": hint, "passing": passing}
        self._set(plan_id, PlanState.REFUSED, body, keepttl=True, xx=True)

    def forget(self, plan_id: str) -> None:
        self._redis.delete(keys.plan(plan_id))

    def remember(self, digest: str, value: dict[str, Any]) -> None:
        """Keep something for a while that other plans can be answered from."""
        self._redis.set(keys.plan(f"known:{digest}"), orjson.dumps(value), px=round(KNOWN_SECONDS * 1000))

    def recall(self, digest: str) -> dict[str, Any] | None:
        found = self._redis.get(keys.plan(f"known:{digest}"))
        value: dict[str, Any] | None = None if found is None else orjson.loads(found)
        return value

    def _set(self, plan_id: str, state: PlanState, body: dict[str, Any], **options: Any) -> None:  # noqa: ANN401 - SET's
        self._redis.set(keys.plan(plan_id), orjson.dumps({"state": state, "body": body}), **options)
