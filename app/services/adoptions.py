"""Models made elsewhere: an uploaded file lies in its job's folder, and the job makes a model version of it.

`<data>/jobs/<id>/request.json` and `upload` are there before the job is handed in, as a dataset's are: what was
acknowledged is done after any crash. The upload goes when the version is there, or with the job.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from app.services.dataset_views import REQUEST
from app.services.deletion import is_marked
from app.services.jobs import Jobs, Placed
from app.services.ledger import AsyncLedger
from app.services.submissions import Terms
from app.services.uploads import Intake, Upload, check_filled, terms_in
from jobs.model import Kind, Lane, Priority
from store.datasets import UPLOAD
from store.layout import Layout


class AdoptionRecord(BaseModel):
    """request.json: a file as it was acknowledged. `asked` is what its job is asked, beside the file."""

    model_config = ConfigDict(frozen=True)

    id: str
    filename: str | None
    bytes: int
    sha256: str
    asked: dict[str, Any]
    created_at: datetime
    priority: Priority = Priority.NORMAL
    max_seconds: float | None = None

    @property
    def job(self) -> str:
        return self.id

    def spec(self) -> dict[str, Any]:
        return {**self.asked, "upload": self.id, "filename": self.filename}


class Adoptions(Intake[AdoptionRecord]):
    kind = Kind.ADOPT

    def __init__(self, ledger: AsyncLedger, layout: Layout, jobs: Jobs, *, ring: Callable[[Lane], None]) -> None:
        super().__init__(ledger, layout, ring=ring)
        self._jobs = jobs

    async def begin(self, *, idempotency_key: str | None, announced: int = 0) -> Upload:
        """A place for a body of `announced` bytes.

        Raises ProblemError (507) where there is none, UnavailableError where the job could not be handed in anyway.
        """
        key = None if idempotency_key is None else f"model {idempotency_key}"  # a dataset's may be the same
        return await self._begin(prefix="job_", idempotency_key=key, announced=announced)

    async def accept(self, upload: Upload, *, asked: dict[str, Any], filename: str | None, terms: Terms) -> Placed:
        """Acknowledge a whole file: on disk, and its job in the ledger, when this returns.

        The same Idempotency-Key, request and bytes answer with the first job. Raises InvalidError, ConflictError,
        UnavailableError.
        """
        check_filled(upload, example="curl -T model.safetensors …")
        record = AdoptionRecord(
            id=upload.id,
            filename=filename,
            bytes=upload.size,
            sha256=upload.sha256,
            asked=asked,
            created_at=datetime.now(UTC),
            priority=terms.priority,
            max_seconds=terms.max_seconds,
        )
        acknowledged, found = await self._acknowledge(upload, record)
        return found or await self._jobs.get(acknowledged.id)

    def _folder(self, its_id: str) -> Path:
        return self._layout.job(its_id)

    def _settled(self, its_id: str) -> AdoptionRecord | None:
        """None also where it cannot be read: others are not to wait for that."""
        folder = self._folder(its_id)
        if not any((folder / name).exists() for name in (UPLOAD, "spec.json", "record.json")):
            return None  # the upload goes only when its job has begun or ended
        try:
            return AdoptionRecord.model_validate_json((folder / REQUEST).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def _same(self, earlier: AdoptionRecord, record: AdoptionRecord) -> bool:
        return (earlier.sha256, earlier.asked, *terms_in(earlier)) == (record.sha256, record.asked, *terms_in(record))

    def _waits(self, record: AdoptionRecord) -> bool:
        folder = self._folder(record.id)
        ended = (folder / "record.json").exists() or is_marked(self._layout, record.id)
        return (folder / UPLOAD).exists() and not ended

    def _records(self) -> Iterator[AdoptionRecord]:
        for upload in self._layout.jobs.glob(f"*/{UPLOAD}"):
            if (record := self._settled(upload.parent.name)) is not None:
                yield record
