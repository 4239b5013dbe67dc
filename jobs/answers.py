"""What the ledger answers and how it refuses."""

from dataclasses import dataclass, field
from typing import Any, Literal

from jobs.model import Event, Kind, Orders, State

Outcome = Literal["done", "unchanged", "refused", "publishing", "nothing_to_keep", "not_for_kind"]


class JobNotFound(LookupError):
    """No job has this id."""


class IdempotencyConflict(Exception):
    """The idempotency key was used before, for another request."""


class QueueFull(Exception):
    """As many jobs as there may be have not ended."""


class LeaseLost(Exception):
    """Another claim holds the job, or nobody does: whoever gets this must stop and write nothing more."""


class RetryRefused(Exception):
    """Only what failed or was cancelled can be tried again; `state` is the job's."""

    def __init__(self, state: State) -> None:
        super().__init__(f"the job is {state}")
        self.state = state


@dataclass(frozen=True)
class Submitted:
    job_id: str
    created: bool


@dataclass(frozen=True)
class Claim:
    """The right to run a job, until another claim takes it."""

    job_id: str
    number: int
    kind: Kind
    spec: dict[str, Any]
    orders: Orders = field(default_factory=Orders)
    #: How long the job ran before this answer, ms.
    ran_ms: int = 0
    max_seconds: float | None = None
    retry_of: str | None = None
    #: What an earlier claim's process gave and that claim began to publish: this one has only to end that.
    publishing: dict[str, Any] | None = None
    #: Deaths of the claims before, since the last checkpoint.
    crashes_in_a_row: int = 0
    #: The trace of the request that asked for the job (W3C Trace Context).
    traceparent: str | None = None


@dataclass(frozen=True)
class Answer:
    """What a verb found and did.

    `unchanged`: it was so already. `refused`: `before` does not allow it. `publishing`: the result is just being
    published. `nothing_to_keep`: the training never started. `not_for_kind`: only trainings know this verb.
    """

    before: State
    outcome: Outcome


@dataclass(frozen=True)
class Window:
    """A page of what a job's stream still holds; `first` is the id of the stream's oldest entry."""

    first: str | None
    events: list[Event]
    more: bool
