"""Datasets as answers show them."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.services.dataset_views import DatasetView, Status
from jobs.model import JobError
from store.datasets import ImageSummary, Report, Source, SplitSummary, Truncated

ACCEPTED_EXAMPLE: dict[str, Any] = {
    "id": "ds_5c9a6f0d",
    "name": "pets",
    "bytes": 1048576,
    "job": {"id": "job_8d3f21aa"},
}
EXAMPLE: dict[str, Any] = {
    "id": "ds_5c9a6f0d",
    "name": "pets",
    "status": "ready",
    "created_at": "2026-01-31T12:00:00Z",
    "filename": "pets.zip",
    "bytes": 1048576,
    "job": {"id": "job_8d3f21aa"},
    "error": None,
    "digest": "sha256:" + "0123456789abcdef" * 4,
    "source": {"format": "image_folder"},
    "classes": ["cat", "dog"],
    "splits": {"train": {"images": 90, "per_class": [45, 45]}, "test": {"images": 10, "per_class": [5, 5]}},
    "image": {
        "sizes": {"32x32": 100},
        "modes": {"RGB": 100},
        "uniform": True,
        "height": 32,
        "width": 32,
        "channels": 3,
    },
    "report": {
        "images": 100,
        "corrupt": [{"file": "train/cat/7.jpg", "reason": "truncated"}],
        "skipped": [],
        "warnings": [],
        "truncated": {"corrupt": 0, "skipped": 0},
    },
}


class JobRef(BaseModel):
    id: str


class DatasetAccepted(BaseModel):
    """The upload is on disk; `job` imports it."""

    model_config = ConfigDict(json_schema_extra={"examples": [ACCEPTED_EXAMPLE]})

    id: str
    name: str
    bytes: int
    job: JobRef


class DatasetBody(BaseModel):
    """A dataset; what the import finds out is null until it is ready."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [EXAMPLE]}, json_schema_serialization_defaults_required=True
    )

    id: str
    name: str
    status: Status
    created_at: datetime
    filename: str | None
    bytes: int | None
    job: JobRef | None
    error: JobError | None
    digest: str | None = None
    source: Source | None = None
    classes: list[str] | None = None
    splits: dict[str, SplitSummary] | None = None
    image: ImageSummary | None = None
    report: Report | None = Field(
        None, description="In a list `corrupt` and `skipped` are empty, and `truncated` counts all of their entries."
    )

    @classmethod
    def listed(cls, view: DatasetView) -> "DatasetBody":
        """As one of many: without the report's long lists."""
        shown = cls.of(view)
        return shown if shown.report is None else shown.model_copy(update={"report": _counted(shown.report)})

    @classmethod
    def of(cls, view: DatasetView) -> "DatasetBody":
        found: dict[str, Any] = {}
        if view.descriptor is not None:
            names = ("digest", "source", "classes", "splits", "image", "report")
            found = {name: getattr(view.descriptor, name) for name in names}
            found["classes"] = list(view.descriptor.classes)
        return cls(
            id=view.id,
            name=view.name,
            status=view.status,
            created_at=view.created_at,
            filename=view.filename,
            bytes=view.bytes,
            job=None if view.job is None else JobRef(id=view.job),
            error=view.error,
            **found,
        )


def _counted(report: Report) -> Report:
    """The report with its two lists of files as numbers."""
    left_out = Truncated(
        corrupt=report.truncated.corrupt + len(report.corrupt), skipped=report.truncated.skipped + len(report.skipped)
    )
    return report.model_copy(update={"corrupt": (), "skipped": (), "truncated": left_out})
