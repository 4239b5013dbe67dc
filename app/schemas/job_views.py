"""Jobs and their events as answers show them."""

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.jobs import TRAIN_EXAMPLE, WEBHOOK_EXAMPLE
from jobs.model import Event, Job, JobError, Kind, Priority, State

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
    "spec": {name: value for name, value in TRAIN_EXAMPLE.items() if name != "kind"},
    "priority": "normal",
    "queue": None,
    "settings": {"lr": 0.05},
    "finish_requested": False,
    "created_at": "2026-01-31T12:00:00Z",
    "started_at": "2026-01-31T12:00:01Z",
    "finished_at": None,
    "seconds": 78.4,
    "max_seconds": 3600.0,
    "attempts": 1,
    "crashes": 0,
    "retry_of": None,
    "retried_as": None,
    "webhook": WEBHOOK_EXAMPLE,
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
    "links": {
        "self": "/v1/jobs/job_8d3f21aa",
        "events": "/v1/jobs/job_8d3f21aa/events",
        "deliveries": "/v1/jobs/job_8d3f21aa/deliveries",
        "dataset": "/v1/datasets/ds_5c9a6f0d",
    },
}
ACCEPTED_EXAMPLE: dict[str, Any] = EXAMPLE | {
    "state": "queued",
    "queue": {"position": 2},
    "settings": {},
    "started_at": None,
    "seconds": 0.0,
    "attempts": 0,
    "progress": None,
    "metrics": {"latest": None, "best": None},
    "webhook": WEBHOOK_EXAMPLE | {"secret": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="},
}
_LONG = ("per_class", "confusion")  # of a result's metrics: they grow with the classes
EVENT_EXAMPLE: dict[str, Any] = {"id": "1769860801000-0", "type": "epoch", "at": "2026-01-31T12:00:01Z", "data": _EPOCH}


class JobMetrics(BaseModel):
    """Of the last epoch, and of the one with the best validation top-1."""

    latest: dict[str, Any] | None
    best: dict[str, Any] | None


class QueuePlace(BaseModel):
    position: int = Field(description="1 is the next of its lane.")


class WebhookBody(BaseModel):
    """Never with its secret."""

    url: str
    events: list[State]


class WebhookAccepted(WebhookBody):
    secret: str | None = Field(description="What deliveries are signed with. This answer alone tells it.")


class JobBody(BaseModel):
    """A job: what was asked for, how far it is, and what came of it."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    id: str
    kind: Kind
    state: State
    spec: dict[str, Any]
    priority: Priority
    queue: QueuePlace | None = Field(description="Its place, while it is queued.")
    settings: dict[str, Any] = Field(description="What PATCH has changed: `lr`, `epochs`, `patience`.")
    finish_requested: bool = Field(
        description="Whether it was asked to stop early, with the epoch that its recipe's `keep` names."
    )
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    seconds: float = Field(description="How long it has run, over all its attempts.")
    max_seconds: float | None
    attempts: int = Field(description="How often a worker has claimed the job.")
    crashes: int = Field(description="How often its process or its worker died.")
    retry_of: str | None = Field(description="The job that this one tries again.")
    retried_as: str | None = Field(description="The job that tries this one again.")
    webhook: WebhookBody | None
    progress: dict[str, Any] | None
    metrics: JobMetrics
    result: dict[str, Any] | None = Field(
        description="What came of it. In a list its `metrics` are without `per_class` and `confusion`."
    )
    error: JobError | None = Field(description="Why it failed. In a list, `log` is null.")
    links: dict[str, str]

    @classmethod
    def of(cls, job: Job, *, position: int | None = None, log: bool = True) -> "JobBody":
        """`log`: with the last output of a process that crashed."""
        return cls(**_fields(job, position, log=log), webhook=_webhook(job))

    @classmethod
    def listed(cls, job: Job, *, position: int | None = None) -> "JobBody":
        """As one of many: without what may be long, the log and each class's figures."""
        result = job.result or {}
        if isinstance(metrics := result.get("metrics"), dict):
            short = {name: value for name, value in metrics.items() if name not in _LONG}
            job = job.model_copy(update={"result": {**result, "metrics": short}})
        return cls.of(job, position=position, log=False)


class JobAccepted(JobBody):
    """A job as the answer to its submission: with the webhook's secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [ACCEPTED_EXAMPLE]})

    webhook: WebhookAccepted | None  # the one answer with the secret

    @classmethod
    def of(cls, job: Job, *, position: int | None = None, log: bool = True) -> "JobAccepted":
        shown = _webhook(job)
        secret = job.webhook.secret if job.webhook else None
        webhook = WebhookAccepted(**shown.model_dump(), secret=secret) if shown else None
        return cls(**_fields(job, position, log=log), webhook=webhook)


class EventBody(Event):
    """One entry of a job's history. Types: the states, and what the job's process says (progress, epoch, …)."""

    model_config = ConfigDict(json_schema_extra={"examples": [EVENT_EXAMPLE]})


_SHARED = (
    *("id", "kind", "state", "spec", "priority", "created_at", "started_at", "finished_at", "max_seconds"),
    *("crashes", "retry_of", "retried_as", "progress", "result"),
)


def _fields(job: Job, position: int | None, *, log: bool) -> dict[str, Any]:
    return {name: getattr(job, name) for name in _SHARED} | {
        "error": job.error if log or job.error is None else job.error.model_copy(update={"log": None}),
        "queue": None if position is None else QueuePlace(position=position),
        "settings": job.orders.settings,
        "finish_requested": job.orders.finish,
        "seconds": round(_seconds(job, datetime.now(UTC)), 3),
        "attempts": job.claim,
        "metrics": JobMetrics(latest=job.latest, best=job.best),
        "links": _links(job),
    }


def _seconds(job: Job, now: datetime) -> float:
    """Under earlier claims and under this one."""
    counted = job.counted_at or job.claimed_at  # an earlier version counted at a claim's end alone
    since = (now - counted).total_seconds() if counted is not None and not job.ended else 0.0
    return job.ran_ms / 1000 + max(since, 0.0)


def _webhook(job: Job) -> WebhookBody | None:
    return None if job.webhook is None else WebhookBody(url=job.webhook.url, events=list(job.webhook.events))


def _links(job: Job) -> dict[str, str]:
    place = f"/v1/jobs/{job.id}"
    links = {"self": place, "events": f"{place}/events"}
    if job.webhook is not None:
        links["deliveries"] = f"{place}/deliveries"
    if dataset := job.spec.get("dataset"):
        links["dataset"] = f"/v1/datasets/{dataset}"
    made = job.result or {}
    if made.get("artifacts"):
        links["artifacts"] = f"{place}/artifacts"
    if made.get("model") and made.get("version"):
        links["model"] = f"/v1/models/{made['model']}@{made['version']}"
    if job.retry_of:
        links["retry_of"] = f"/v1/jobs/{job.retry_of}"
    if job.retried_as:
        links["retried_as"] = f"/v1/jobs/{job.retried_as}"
    return links
