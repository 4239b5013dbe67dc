"""Dataset uploads: from a stream of bytes to an acknowledged file and its import job.

A body goes to `<data>/uploads/<id>.part`, locked while it arrives. Whole and on disk, it moves to
`<data>/datasets/<id>/upload`, and only then is the job handed in and the client told. So what was acknowledged is there
after any crash, and what was not is swept away at the next start.
"""

import errno
import fcntl
import hashlib
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

import anyio
import anyio.to_thread
from pydantic import BaseModel

from app import tracing
from app.problems import ConflictError, InvalidError, ProblemError, wrong
from app.services.datasets import REQUEST, Datasets, UploadRecord
from app.services.ledger import AsyncLedger
from app.services.submissions import idempotency_conflict
from jobs.ledger import Ledger
from jobs.model import Kind, Lane
from store.datasets import UPLOAD, Dataset
from store.faults import point
from store.files import fsync_dir, remove_tree, write_atomic
from store.layout import Layout

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20  # written at a time; all that an upload holds in memory
_MAX_NAME = 100


class Upload:
    """One body on its way to disk. Its methods block: call them in threads."""

    def __init__(self, layout: Layout, its_id: str, *, repeatable: bool, folder: Path | None = None) -> None:
        self.id = its_id
        self.folder = folder or layout.dataset(its_id)
        self.repeatable = repeatable  # sent again, it is recognised by its id
        self.size = 0
        self._path = layout.uploads / f"{its_id}.{uuid4().hex}.part"
        self._digest = hashlib.sha256()
        self._fd = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o644)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Raises ProblemError (507) where the disk is full."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise _disk(error) from error
        self._digest.update(data)
        self.size += len(data)

    def settle(self, record: BaseModel) -> None:
        """Make the upload, with its record, a folder that waits for its job, durably.

        Raises FileExistsError for an id in use.
        """
        folder = self.folder
        try:
            os.fsync(self._fd)
            folder.mkdir()
            write_atomic(folder / REQUEST, record.model_dump_json(indent=2).encode())
            self._path.rename(folder / UPLOAD)
            fsync_dir(folder)
            fsync_dir(folder.parent)
        except FileExistsError:
            raise
        except OSError as error:
            remove_tree(folder)
            raise _disk(error) from error

    def close(self) -> None:
        """Let go; what was not settled is removed."""
        self._path.unlink(missing_ok=True)
        os.close(self._fd)


def _disk(error: OSError) -> ProblemError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "Free some space in the server's data directory, then upload again."
        return ProblemError("disk_full", "The server's disk is full.", hint=hint, status=507)
    return ProblemError("disk_error", f"The upload cannot be written: {error.strerror}.", hint="The log has more.")


class Uploads:
    def __init__(self, ledger: AsyncLedger, layout: Layout, *, ring: Callable[[Lane], None]) -> None:
        self._ledger = ledger
        self._layout = layout
        self._ring = ring

    async def begin(self, *, idempotency_key: str | None) -> Upload:
        """A place for a body. Raises UnavailableError at once where the job could not be handed in anyway."""
        await self._ledger.read(lambda ledger: ledger.redis.ping())
        keyed = idempotency_key is not None
        token = hashlib.sha256(str(idempotency_key).encode()).hexdigest()[:32] if keyed else uuid4().hex
        return await anyio.to_thread.run_sync(lambda: Upload(self._layout, f"ds_{token}", repeatable=keyed))

    async def accept(self, upload: Upload, *, name: str | None, filename: str | None) -> UploadRecord:
        """Acknowledge a whole body: on disk, and its import job in the ledger, when this returns.

        The same Idempotency-Key, name and bytes answer with the first upload. Raises InvalidError, ConflictError,
        UnavailableError.
        """
        if upload.size == 0:
            raise InvalidError(
                "empty_upload", "The upload is empty.", hint="`curl -T images.zip …` sends a file as the body."
            )
        record = UploadRecord(
            id=upload.id,
            name=dataset_name(name, filename, default=upload.id),
            filename=filename,
            bytes=upload.size,
            sha256=upload.sha256,
            job=f"job_{uuid4().hex}",
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
                    await anyio.to_thread.run_sync(remove_tree, self._layout.dataset(upload.id))
            raise
        return record

    async def _hand_in(self, record: UploadRecord) -> None:
        """Its import job, once, however often this is called. Raises UnavailableError."""
        point("submit.before")
        await self._ledger.write(partial(_hand_in, record=record))
        point("submit.written")
        self._ring(Lane.CPU)
        point("submit.rung")

    async def _same(self, record: UploadRecord) -> UploadRecord:
        """The earlier upload under the same key, if it was the same."""
        earlier = await anyio.to_thread.run_sync(self._settled, record.id)
        if earlier is None:
            raise ConflictError(
                "upload_in_progress", "An upload under this Idempotency-Key is just arriving.", hint="Try again later."
            )
        if (earlier.sha256, earlier.name) != (record.sha256, record.name):
            raise idempotency_conflict()
        if not self._ended(earlier):
            await self._hand_in(earlier)
        return earlier

    def _settled(self, dataset_id: str) -> UploadRecord | None:
        """The upload's record, where its body is whole; for threads."""
        folder = self._layout.dataset(dataset_id)
        if not (folder / UPLOAD).exists() and not _imported(folder):
            return None
        try:
            return UploadRecord.model_validate_json((folder / REQUEST).read_bytes())
        except FileNotFoundError:
            return None

    def _ended(self, record: UploadRecord) -> bool:
        """Whether its import is known to have ended."""
        return (self._layout.job(record.job) / "record.json").exists() or _imported(self._layout.dataset(record.id))

    async def sweep(self) -> None:
        """After a start: remove what dead uploads left."""
        await anyio.to_thread.run_sync(sweep, self._layout)

    async def recover(self, datasets: Datasets) -> None:
        """Hand in the jobs of uploads that were cut off before theirs was."""
        for record in await anyio.to_thread.run_sync(lambda: list(datasets.records())):
            if not self._ended(record):
                await self._ledger.write(partial(_hand_in, record=record))


def _hand_in(ledger: Ledger, *, record: UploadRecord) -> None:
    ledger.submit(Kind.IMPORT, record.spec(), job_id=record.job, traceparent=tracing.current().traceparent)


def sweep(layout: Layout) -> list[str]:
    """Remove what dead uploads left: parts that nobody holds, and their folders that never got their upload."""
    swept = []
    for part in layout.uploads.glob("*.part"):
        if not _dead(part):
            continue
        its_id = part.name.partition(".")[0]
        folder = layout.job(its_id) if its_id.startswith("job_") else layout.dataset(its_id)
        if _unsettled(folder):
            remove_tree(folder)
        part.unlink(missing_ok=True)
        swept.append(part.name)
    return swept


def _unsettled(folder: Path) -> bool:
    """Whether a folder holds no more than what `settle` writes before the upload itself."""
    return folder.exists() and all(each.name == REQUEST or each.name.startswith(".") for each in folder.iterdir())


def _imported(folder: Path) -> bool:
    try:
        Dataset.read(folder)
    except FileNotFoundError:
        return False
    return True


def _dead(part: Path) -> bool:
    try:
        fd = os.open(part, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def dataset_name(name: str | None, filename: str | None, *, default: str) -> str:
    """What the dataset is called: as asked, else like its file. Raises InvalidError."""
    if name is None:
        return (filename or "").partition(".")[0].strip()[:_MAX_NAME] or default
    name = name.strip()
    if not name or len(name) > _MAX_NAME or not name.isprintable():
        detail = f"A dataset's name is 1 to {_MAX_NAME} printable characters"
        raise InvalidError("invalid_name", f"{detail}.", errors=wrong("#/name", detail))
    return name
