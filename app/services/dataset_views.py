"""What lies on disk of a dataset: `request.json`, the upload as it was acknowledged, and what its import made of it."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.model import JobError, Priority
from store.datasets import DESCRIPTOR, UPLOAD, Dataset
from store.layout import Layout

REQUEST = "request.json"
_ID = re.compile(r"ds_[A-Za-z0-9_-]{1,64}")


class Status(StrEnum):
    #: Uploaded; the import is queued or runs.
    IMPORTING = "importing"
    #: Imported: it can be trained on.
    READY = "ready"
    #: The import failed, or what it left is damaged; `error` says why.
    FAILED = "failed"
    #: The import was cancelled.
    CANCELLED = "cancelled"


class UploadRecord(BaseModel):
    """request.json: an upload as it was acknowledged."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    filename: str | None
    bytes: int
    sha256: str
    job: str
    created_at: datetime
    priority: Priority = Priority.NORMAL
    max_seconds: float | None = None

    def spec(self) -> dict[str, Any]:
        """What the import job is asked."""
        return {"dataset": self.id, "name": self.name, "filename": self.filename}


@dataclass(frozen=True)
class DatasetView:
    """A dataset with its status; `descriptor` where it is ready."""

    id: str
    name: str
    status: Status
    created_at: datetime
    filename: str | None = None
    bytes: int | None = None
    job: str | None = None
    error: JobError | None = None
    descriptor: Dataset | None = None


def is_id(text: str) -> bool:
    """Whether a dataset may have this id."""
    return _ID.fullmatch(text) is not None


def folders(layout: Layout) -> list[Path]:
    try:
        return [each for each in layout.datasets.iterdir() if _ID.fullmatch(each.name)]
    except FileNotFoundError:
        return []


def record_of(folder: Path) -> UploadRecord | None:
    """None where there is none that can be read."""
    try:
        return UploadRecord.model_validate_json((folder / REQUEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def view_of(folder: Path) -> DatasetView | None:
    """What the files say; the import's job is asked elsewhere. None where the upload is not whole yet."""
    uploaded = (folder / UPLOAD).exists()  # before the record, which is written first
    record = record_of(folder)
    try:
        descriptor = Dataset.read(folder)
    except (FileNotFoundError, NotADirectoryError):
        descriptor = None
    except ValidationError:
        return _damaged(folder, DESCRIPTOR, record)
    if descriptor is not None:
        return DatasetView(
            id=folder.name,
            name=descriptor.name,
            status=Status.READY,
            created_at=record.created_at if record else descriptor.created_at.astimezone(UTC),
            filename=record.filename if record else None,
            bytes=record.bytes if record else None,
            job=record.job if record else None,
            descriptor=descriptor,
        )
    if not uploaded:
        return None
    if record is None:
        return _damaged(folder, REQUEST, record)
    return DatasetView(
        id=record.id,
        name=record.name,
        status=Status.IMPORTING,
        created_at=record.created_at,
        filename=record.filename,
        bytes=record.bytes,
        job=record.job,
    )


def _damaged(folder: Path, file: str, record: UploadRecord | None) -> DatasetView | None:
    """What can be said of a dataset whose `file` cannot be read. None where it has just been deleted."""
    try:
        since = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None
    message = f"The dataset's {file} is damaged."
    error = JobError(code="dataset_damaged", message=message, hint="Delete the dataset and upload its images again.")
    return DatasetView(
        id=folder.name,
        name=record.name if record else folder.name,
        status=Status.FAILED,
        created_at=record.created_at if record else since,
        filename=record.filename if record else None,
        bytes=record.bytes if record else None,
        job=record.job if record else None,
        error=error,
    )
