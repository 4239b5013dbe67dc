"""Models made elsewhere: an uploaded file lies in its job's folder, and the job makes a model version of it.

`<data>/jobs/<id>/request.json` and `upload` are there before the job is handed in, as a dataset's are: what was
acknowledged is done after any crash. The upload goes when the version is there, or with the job.
"""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import anyio.to_thread
from pydantic import BaseModel, ConfigDict

from app import tracing
from app.problems import ConflictError, InvalidError
from app.services.datasets import REQUEST
from app.services.deletion import is_marked
from app.services.jobs import Jobs, Placed
from app.services.ledger import AsyncLedger
from app.services.submissions import idempotency_conflict
from app.services.uploads import Upload
from jobs.ledger import Ledger
from jobs.model import LANES, Kind, Lane
from store.datasets import UPLOAD
from store.faults import point
from store.files import remove_tree
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

    def spec(self) -> dict[str, Any]:
        return {**self.asked, "upload": self.id, "filename": self.filename}


class Adoptions:
    def __init__(self, ledger: AsyncLedger, layout: Layout, jobs: Jobs, *, ring: Callable[[Lane], None]) -> None:
        self._ledger = ledger
        self._layout = layout
        self._jobs = jobs
        self._ring = ring

    async def begin(self, *, idempotency_key: str | None) -> Upload:
        """A place for a body. Raises UnavailableError at once where the job could not be handed in anyway."""
        await self._ledger.read(lambda ledger: ledger.redis.ping())
        keyed = idempotency_key is not None
        token = hashlib.sha256(f"model {idempotency_key}".encode()).hexdigest()[:32] if keyed else uuid4().hex
        its_id = f"job_{token}"
        folder = self._layout.job(its_id)
        return await anyio.to_thread.run_sync(lambda: Upload(self._layout, its_id, repeatable=keyed, folder=folder))

    async def accept(self, upload: Upload, *, asked: dict[str, Any], filename: str | None) -> Placed:
        """Acknowledge a whole file: on disk, and its job in the ledger, when this returns.

        The same Idempotency-Key, request and bytes answer with the first job. Raises InvalidError, ConflictError,
        UnavailableError.
        """
        if upload.size == 0:
            raise InvalidError(
                "empty_upload", "The upload is empty.", hint="`curl -T model.safetensors …` sends a file as the body."
            )
        record = AdoptionRecord(
            id=upload.id,
            filename=filename,
            bytes=upload.size,
            sha256=upload.sha256,
            asked=asked,
            created_at=datetime.now(UTC),
        )
        try:
            await anyio.to_thread.run_sync(upload.settle, record)
        except FileExistsError:
            return await self._same(record)
        try:
            await self._hand_in(record)
        except BaseException:
            # It may have been written. What can be sent again stays, and the same job is handed in then.
            if not upload.repeatable:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(remove_tree, upload.folder)
            raise
        return await self._jobs.get(record.id)

    async def recover(self) -> None:
        """Hand in the jobs of files that were cut off before theirs was. Raises UnavailableError."""
        for record in await anyio.to_thread.run_sync(self._waiting):
            await self._ledger.write(partial(_hand_in, record=record))

    async def _hand_in(self, record: AdoptionRecord) -> None:
        point("submit.before")
        await self._ledger.write(partial(_hand_in, record=record))
        point("submit.written")
        self._ring(LANES[Kind.ADOPT])
        point("submit.rung")

    async def _same(self, record: AdoptionRecord) -> Placed:
        """The earlier job under the same key, if it was the same request."""
        earlier = await anyio.to_thread.run_sync(_record, self._layout.job(record.id))
        if earlier is None:
            raise ConflictError(
                "upload_in_progress", "An upload under this Idempotency-Key is just arriving.", hint="Try again later."
            )
        if (earlier.sha256, earlier.asked) != (record.sha256, record.asked):
            raise idempotency_conflict()
        if await anyio.to_thread.run_sync(self._waits, self._layout.job(record.id)):
            await self._hand_in(earlier)
        return await self._jobs.get(record.id)

    def _waiting(self) -> list[AdoptionRecord]:
        folders = [upload.parent for upload in self._layout.jobs.glob(f"*/{UPLOAD}")]
        found = [_record(folder) for folder in folders if self._waits(folder)]
        return [record for record in found if record is not None]

    def _waits(self, folder: Path) -> bool:
        """Whether the file may still need its job: nothing is known of an end. To hand it in twice changes nothing."""
        ended = (folder / "record.json").exists() or is_marked(self._layout, folder.name)
        return (folder / UPLOAD).exists() and not ended


def _record(folder: Path) -> AdoptionRecord | None:
    try:
        return AdoptionRecord.model_validate_json((folder / REQUEST).read_bytes())
    except FileNotFoundError:
        return None


def _hand_in(ledger: Ledger, *, record: AdoptionRecord) -> None:
    ledger.submit(Kind.ADOPT, record.spec(), job_id=record.id, traceparent=tracing.current().traceparent)
