"""Webhook deliveries as answers show them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from jobs.deliveries import Attempt, Outcome, Pending

_EXAMPLE: dict[str, Any] = {
    "data": [
        {
            "delivery": "1769860880000-0",
            "type": "job.succeeded",
            "attempt": 1,
            "at": "2026-01-31T12:01:20.412Z",
            "outcome": "retry",
            "status": 503,
            "error": None,
            "ms": 38,
            "next_at": "2026-01-31T12:01:25.412Z",
        }
    ],
    "pending": [{"delivery": "1769860880000-0", "due_at": "2026-01-31T12:01:25.412Z"}],
    "has_more": False,
    "next": None,
}


class AttemptBody(BaseModel):
    """One attempt to deliver one message."""

    delivery: str = Field(description="Id of the event that the message tells of; `webhook-id` is `<job>.<delivery>`.")
    type: str
    attempt: int
    at: datetime
    outcome: Outcome = Field(description="2xx is `delivered`, 410 `gone`; else `retry`, and `given_up` at the end.")
    status: int | None = Field(description="The receiver's answer; null where there was none.")
    error: str | None
    ms: int
    next_at: datetime | None

    @classmethod
    def of(cls, attempt: Attempt) -> "AttemptBody":
        fields = {name: getattr(attempt, name) for name in cls.model_fields if name != "type"}
        return cls(type=f"job.{attempt.state}", **fields)


class PendingBody(BaseModel):
    delivery: str
    due_at: datetime = Field(description="When the next attempt begins, or when one under way is taken for lost.")


class DeliveriesBody(BaseModel):
    """The newest 100 attempts, newest first, or a part of them; and all that is still to be sent."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    data: list[AttemptBody]
    pending: list[PendingBody]
    has_more: bool
    next: str | None

    @classmethod
    def of(cls, attempts: Sequence[Attempt], pending: Sequence[Pending], following: str | None) -> "DeliveriesBody":
        """`following`: the `after` of the next part, None where there is none."""
        return cls(
            data=[AttemptBody.of(each) for each in attempts],
            pending=[PendingBody(delivery=each.delivery, due_at=each.due_at) for each in pending],
            has_more=following is not None,
            next=following,
        )
