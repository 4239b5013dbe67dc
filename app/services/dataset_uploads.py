"""Dataset uploads: `<data>/datasets/<id>/request.json` and `upload` wait for their import job."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import anyio.to_thread

from app.problems import InvalidError, wrong
from app.services.dataset_views import UploadRecord, is_id, record_of
from app.services.datasets import Datasets
from app.services.ledger import AsyncLedger
from app.services.submissions import Terms
from app.services.upload_parts import sweep
from app.services.uploads import Intake, Upload, check_filled, terms_in
from jobs.model import Kind, Lane
from store.datasets import DESCRIPTOR, UPLOAD
from store.layout import Layout

_MAX_NAME = 100


class DatasetUploads(Intake[UploadRecord]):
    kind = Kind.IMPORT

    def __init__(
        self, ledger: AsyncLedger, layout: Layout, datasets: Datasets, *, ring: Callable[[Lane], None]
    ) -> None:
        super().__init__(ledger, layout, ring=ring)
        self._datasets = datasets

    async def begin(self, *, idempotency_key: str | None, announced: int = 0) -> Upload:
        """A place for a body of `announced` bytes.

        Raises ProblemError (507) where there is none, UnavailableError where the job could not be handed in anyway.
        """
        return await self._begin(prefix="ds_", idempotency_key=idempotency_key, announced=announced)

    async def accept(self, upload: Upload, *, name: str | None, filename: str | None, terms: Terms) -> UploadRecord:
        """Acknowledge a whole body: on disk, and its import job in the ledger, when this returns.

        The same Idempotency-Key, name and bytes answer with the first upload. Raises InvalidError, ConflictError,
        UnavailableError.
        """
        check_filled(upload, example="curl -T images.zip …")
        record = UploadRecord(
            id=upload.id,
            name=dataset_name(name, filename, default=upload.id),
            filename=filename,
            bytes=upload.size,
            sha256=upload.sha256,
            job=f"job_{uuid4().hex}",
            created_at=datetime.now(UTC),
            priority=terms.priority,
            max_seconds=terms.max_seconds,
        )
        acknowledged, _ = await self._acknowledge(upload, record)
        return acknowledged

    async def sweep(self) -> None:
        """Remove what dead uploads and deletions left, of models too."""
        await anyio.to_thread.run_sync(sweep, self._layout)

    def _folder(self, its_id: str) -> Path:
        return self._layout.dataset(its_id)

    def _settled(self, its_id: str) -> UploadRecord | None:
        folder = self._folder(its_id)
        if not (folder / UPLOAD).exists() and not self._imported(its_id):
            return None
        return record_of(folder)

    def _same(self, earlier: UploadRecord, record: UploadRecord) -> bool:
        return (earlier.sha256, earlier.name, *terms_in(earlier)) == (record.sha256, record.name, *terms_in(record))

    def _waits(self, record: UploadRecord) -> bool:
        return not (self._layout.job(record.job) / "record.json").exists() and not self._imported(record.id)

    def _records(self) -> Iterable[UploadRecord]:
        return self._datasets.records()

    def _imported(self, its_id: str) -> bool:
        return (self._folder(its_id) / DESCRIPTOR).exists()


def dataset_name(name: str | None, filename: str | None, *, default: str) -> str:
    """What the dataset is called: as asked, else like its file, where that has a name. Raises InvalidError."""
    if name is None:
        return (filename or "").partition(".")[0].strip()[:_MAX_NAME] or default
    name = name.strip()
    if not name or len(name) > _MAX_NAME or not name.isprintable():
        detail = f"A dataset's name is 1 to {_MAX_NAME} printable characters"
        hint = "Shorten it; without one the dataset is called like its file, and by its id where that has no name."
        raise InvalidError("invalid_name", f"{detail}.", hint=hint, errors=wrong("#/name", detail))
    return name


def check_filename(filename: str) -> None:
    """Raises InvalidError for what is an id, not a file's name: a dataset that is there is never replaced."""
    if is_id(filename):
        detail = f"{filename!r} is a dataset's id"
        hint = "A dataset never changes; upload another one: PUT /v1/datasets?name=…"
        raise InvalidError("invalid_filename", f"{detail}.", hint=hint, errors=wrong("/path/dataset_id", detail))
