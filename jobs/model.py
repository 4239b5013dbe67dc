"""What a job is."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Kind(StrEnum):
    #: Turn an uploaded archive into a dataset.
    IMPORT = "import"
    #: Train a network on a dataset and register the model version that comes of it.
    TRAIN = "train"
    #: Measure a model version on a dataset's split.
    EVALUATE = "evaluate"
    #: Write a model version in another format.
    EXPORT = "export"
    #: Turn an uploaded state dict or bundle into a model version.
    ADOPT = "adopt"


class Lane(StrEnum):
    """What a job occupies while it runs: one job at a time for each."""

    #: The accelerator, or the cores that stand for it.
    DEVICE = "device"
    #: Disk and one core; so that an upload never waits for a long training.
    CPU = "cpu"


LANES = {
    Kind.IMPORT: Lane.CPU,
    Kind.TRAIN: Lane.DEVICE,
    Kind.EVALUATE: Lane.DEVICE,
    Kind.EXPORT: Lane.CPU,
    Kind.ADOPT: Lane.CPU,
}


class Priority(StrEnum):
    """A lane takes every due job of one class before any of the next, and the longest due first within a class."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class State(StrEnum):
    #: Acknowledged and on disk; waiting for a worker.
    QUEUED = "queued"
    #: Claimed by a worker that renews its lease.
    RUNNING = "running"
    #: Cancelled while it ran; its process is being stopped.
    CANCELLING = "cancelling"
    #: Paused while it ran; its process is being stopped and writes a checkpoint.
    PAUSING = "pausing"
    #: Out of the queue until somebody resumes it.
    PAUSED = "paused"
    #: Ended, and its result is published.
    SUCCEEDED = "succeeded"
    #: Ended; `error` says why.
    FAILED = "failed"
    #: Ended by request.
    CANCELLED = "cancelled"


#: Final for ever.
TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
#: A worker has the job, and its lease counts.
HELD = frozenset({State.RUNNING, State.CANCELLING, State.PAUSING})


class JobError(BaseModel):
    """Why a job failed: a stable code, what happened, and what to do about it."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str
    hint: str = ""
    #: The last of what the process wrote to standard error, at most 64 KiB, where it crashed.
    log: str | None = None


def _json(value: object) -> object:
    return orjson.loads(value) if isinstance(value, str | bytes) else value


def _moment(value: object) -> object:
    """Redis holds milliseconds; JSON holds RFC 3339, which pydantic reads."""
    try:
        return datetime.fromtimestamp(float(value) / 1000, UTC)  # type: ignore[arg-type]  # what it cannot take, it says
    except (TypeError, ValueError):
        return value


Moment = Annotated[datetime, BeforeValidator(_moment)]
JsonDict = Annotated[dict[str, Any], BeforeValidator(_json)]


class Orders(BaseModel):
    """What a job's process is asked to do without stopping. `version` goes up with every change."""

    model_config = ConfigDict(frozen=True)

    version: int = 0
    #: Changed values of `lr`, `epochs` and `patience`; those that were changed only.
    settings: dict[str, Any] = {}
    #: Stop at the next step and keep the epoch that the recipe's `keep` names.
    finish: bool = False
    #: How many checkpoints have been asked for, all in all.
    checkpoint: int = 0


@dataclass(frozen=True)
class Held:
    """What the holder of a claim is told: the job's state, and the version of its orders."""

    state: State
    orders: int


class Webhook(BaseModel):
    """Whom to tell when the job enters one of these states, and what the message is signed with."""

    model_config = ConfigDict(frozen=True)

    url: str
    events: tuple[State, ...] = (State.SUCCEEDED, State.FAILED, State.CANCELLED)
    #: `whsec_<base64>`; nobody but the sender needs to see it.
    secret: str | None = Field(None, repr=False)


class Job(BaseModel):
    """A job's record, as the ledger holds it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    kind: Kind
    state: State
    spec: JsonDict
    priority: Priority = Priority.NORMAL
    #: Seconds that all its claims together may run.
    max_seconds: float | None = None
    webhook: Annotated[Webhook, BeforeValidator(_json)] | None = None
    #: The job that this one tries again, and the one that tried this again.
    retry_of: str | None = None
    retried_as: str | None = None
    #: The trace of the request that asked for it (W3C Trace Context).
    traceparent: str | None = None
    created_at: Moment
    started_at: Moment | None = None
    finished_at: Moment | None = None
    #: How often a worker has claimed the job; it fences every later write.
    claim: int = 0
    owner: str | None = None
    #: When the present claim began; None while nobody holds the job.
    claimed_at: Moment | None = None
    #: How long it ran up to `counted_at`, ms.
    ran_ms: int = 0
    #: When the present claim was renewed last; None while nobody holds the job.
    counted_at: Moment | None = None
    #: Deaths of a worker or of the job's process; only those since the last checkpoint count towards giving up.
    crashes: int = 0
    orders: Annotated[Orders, BeforeValidator(_json)] = Orders()
    progress: JsonDict | None = None
    #: Metrics of the last epoch, of the best epoch, and of the final evaluation.
    latest: JsonDict | None = None
    best: JsonDict | None = None
    result: JsonDict | None = None
    error: Annotated[JobError, BeforeValidator(_json)] | None = None

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL


class Event(BaseModel):
    """One entry of a job's history. `id` is ordered: `<milliseconds>-<n>`."""

    model_config = ConfigDict(frozen=True)

    id: str
    type: str
    at: datetime
    data: dict[str, Any]
