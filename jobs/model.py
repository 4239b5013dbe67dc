"""What a job is."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict


class Kind(StrEnum):
    #: Turn an uploaded archive into a dataset.
    IMPORT = "import"
    #: Train a network on a dataset and register the model version that comes of it.
    TRAIN = "train"


class Lane(StrEnum):
    """What a job occupies while it runs: one job at a time for each."""

    #: The accelerator, or the cores that stand for it.
    DEVICE = "device"
    #: Disk and one core; so that an upload never waits for a long training.
    CPU = "cpu"


LANES = {Kind.IMPORT: Lane.CPU, Kind.TRAIN: Lane.DEVICE}


class State(StrEnum):
    #: Acknowledged and on disk; waiting for a worker.
    QUEUED = "queued"
    #: Claimed by a worker that renews its lease.
    RUNNING = "running"
    #: Cancelled while it ran; its process is being stopped.
    CANCELLING = "cancelling"
    #: Ended, and its result is published.
    SUCCEEDED = "succeeded"
    #: Ended; `error` says why.
    FAILED = "failed"
    #: Ended by request.
    CANCELLED = "cancelled"


TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


class JobError(BaseModel):
    """Why a job failed: a stable code, what happened, and what to do about it."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str
    hint: str = ""


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


class Job(BaseModel):
    """A job's record, as the ledger holds it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    kind: Kind
    state: State
    spec: JsonDict
    created_at: Moment
    started_at: Moment | None = None
    finished_at: Moment | None = None
    #: How often a worker has claimed the job; it fences every later write.
    claim: int = 0
    owner: str | None = None
    #: Deaths of a worker or of the job's process; only those since the last checkpoint count towards giving up.
    crashes: int = 0
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
