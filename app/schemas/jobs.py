from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.model import Event, Job, JobError, Kind, State
from models.manifest import Name

REQUEST_EXAMPLE: dict[str, Any] = {
    "kind": "train",
    "dataset": "ds_5c9a6f0d",
    "recipe": "fashion-mnist-small",
    "overrides": {"epochs": 4, "lr": 0.1},
    "register_as": "fashion",
    "alias": "production",
}
_EPOCH: dict[str, Any] = {
    "epoch": 3,
    "lr": 0.08,
    "train": {"loss": 0.31, "top1": 0.89},
    "val": {"loss": 0.28, "top1": 0.90},
    "seconds": 21.5,
}
EXAMPLE: dict[str, Any] = {
    "id": "job_8d3f21aa",
    "kind": "train",
    "state": "running",
    "spec": REQUEST_EXAMPLE,
    "created_at": "2026-01-31T12:00:00Z",
    "started_at": "2026-01-31T12:00:01Z",
    "finished_at": None,
    "claim": 1,
    "progress": {
        "phase": "train",
        "epoch": 3,
        "epochs": 4,
        "step": 1400,
        "steps": 1820,
        "fraction": 0.77,
        "images_per_second": 5200.0,
        "eta_seconds": 10.3,
        "loss": 0.3,
        "lr": 0.08,
    },
    "metrics": {"latest": _EPOCH, "best": _EPOCH},
    "result": None,
    "error": None,
}
EVENT_EXAMPLE: dict[str, Any] = {"id": "1769860801000-0", "type": "epoch", "at": "2026-01-31T12:00:01Z", "data": _EPOCH}


class TrainRequest(BaseModel):
    """A training job: `recipe` with `overrides` on `dataset`; the result becomes the next version of `register_as`."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [REQUEST_EXAMPLE]})

    kind: Literal["train"]
    dataset: str = Field(max_length=80, description="Id of an imported dataset.")
    recipe: str = Field(max_length=80, description="A name of GET /v1/recipes.")
    overrides: dict[str, str | int | float | bool | list[float] | None] = Field(
        default_factory=dict, description="Fields of the recipe with other values."
    )
    register_as: Name | None = Field(None, description="The model that the result becomes a version of.")
    alias: Name | None = Field(None, description="An alias that then points to the new version.")

    @model_validator(mode="after")
    def _consistent(self) -> "TrainRequest":
        if self.alias is not None and self.register_as is None:
            raise ValueError("alias needs register_as: the alias is one of that model")
        if self.alias is not None and self.alias.isdigit():
            raise ValueError("alias must not be a number")
        return self

    def spec(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"kind"})


class Metrics(BaseModel):
    """Of the last epoch, and of the one with the best validation top-1."""

    latest: dict[str, Any] | None
    best: dict[str, Any] | None


class JobBody(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    id: str
    kind: Kind
    state: State
    spec: dict[str, Any]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    claim: int = Field(description="How often a worker has claimed the job.")
    progress: dict[str, Any] | None
    metrics: Metrics
    result: dict[str, Any] | None
    error: JobError | None

    @classmethod
    def of(cls, job: Job) -> "JobBody":
        names = ("id", "kind", "state", "spec", "created_at", "started_at", "finished_at", "claim", "progress")
        shared = {name: getattr(job, name) for name in names}
        metrics = Metrics(latest=job.latest, best=job.best)
        return cls(**shared, metrics=metrics, result=job.result, error=job.error)


class EventBody(Event):
    """One entry of a job's history. Types: the states, and what the job's process says (progress, epoch, …)."""

    model_config = ConfigDict(json_schema_extra={"examples": [EVENT_EXAMPLE]})
