"""What uploads of datasets and of models share: from a stream of bytes to an acknowledged file and its job.

A body goes to `<data>/uploads/<id>.part`, locked while it arrives. Whole and on disk, it moves to a folder of its own,
and only then is its job handed in and the client told. So what was acknowledged is there after any crash, and what was
not is swept away (`upload_parts.py`).
"""

import asyncio
import errno
import hashlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from uuid import uuid4

import anyio
import anyio.to_thread

from app import tracing
from app.problems import ConflictError, InvalidError, ProblemError, UnavailableError
from app.services.dataset_views import REQUEST
from app.services.jobs import Placed, placed
from app.services.ledger import AsyncLedger
from app.services.submissions import idempotency_conflict
from app.services.upload_parts import open_part
from jobs.answers import JobNotFound
from jobs.ledger import Ledger
from jobs.model import LANES, Kind, Lane, Priority
from store.datasets import UPLOAD
from store.faults import point
from store.files import fsync_dir, remove_tree, write_atomic
from store.layout import Layout
from store.space import spare

CHUNK_BYTES = 1 << 20  # written at a time; all that an upload holds in memory
_SETTLING_SECONDS = 5.0  # for which a repetition waits while the first is written to a busy disk
_SETTLING_POLL = 0.05  # seconds between looks


class Acknowledged(Protocol):
    """request.json: a file as it was acknowledged, a frozen pydantic model."""

    @property
    def id(self) -> str: ...

    @property
    def job(self) -> str:
        """The id of the job that is handed in for it."""

    @property
    def priority(self) -> Priority:
        """That job's."""

    @property
    def max_seconds(self) -> float | None:
        """That job's."""

    def spec(self) -> dict[str, Any]:
        """What that job is asked."""

    def model_dump_json(self, *, indent: int | None = None) -> str: ...


R = TypeVar("R", bound=Acknowledged)


class Upload:
    """One body on its way to disk. Its methods block: call them in threads."""

    def __init__(self, layout: Layout, its_id: str, *, repeatable: bool, folder: Path) -> None:
        self.id = its_id
        self.folder = folder
        self.repeatable = repeatable  # sent again, it is recognised by its id
        self.size = 0
        self._path = layout.uploads / f"{its_id}.{uuid4().hex}.part"
        self._digest = hashlib.sha256()
        self._fd = open_part(self._path)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Raises ProblemError (507) where the disk is full but for its reserve."""
        if len(data) > spare(self._fd):  # asked each time: others write, and a body may come without its length
            raise _disk_full()
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise _disk(error) from error
        self._digest.update(data)
        self.size += len(data)

    def settle(self, record: Acknowledged) -> None:
        """Make the upload, with its record, a folder that waits for its job, durably.

        Raises FileExistsError for an id in use.
        """
        folder = self.folder
        try:
            os.fsync(self._fd)
            folder.mkdir()
        except FileExistsError:
            raise
        except OSError as error:  # a folder that is there is an earlier upload's
            raise _disk(error) from error
        try:
            write_atomic(folder / REQUEST, record.model_dump_json(indent=2).encode())
            self._path.rename(folder / UPLOAD)
            fsync_dir(folder)
            fsync_dir(folder.parent)
        except OSError as error:
            remove_tree(folder)
            raise _disk(error) from error

    def close(self) -> None:
        """Let go; what was not settled is removed."""
        self._path.unlink(missing_ok=True)
        os.close(self._fd)


class Intake(ABC, Generic[R]):
    """Uploads that become jobs of one kind."""

    kind: Kind

    def __init__(self, ledger: AsyncLedger, layout: Layout, *, ring: Callable[[Lane], None]) -> None:
        self._ledger = ledger
        self._layout = layout
        self._ring = ring

    @abstractmethod
    def _folder(self, its_id: str) -> Path:
        """Of an upload."""

    @abstractmethod
    def _settled(self, its_id: str) -> R | None:
        """The record of an upload whose body is whole. For threads."""

    @abstractmethod
    def _same(self, earlier: R, record: R) -> bool:
        """Whether both are of the same request with the same bytes."""

    @abstractmethod
    def _waits(self, record: R) -> bool:
        """Whether it may still need its job: nothing is known of an end. To hand it in twice changes nothing.

        For threads.
        """

    @abstractmethod
    def _records(self) -> Iterable[R]:
        """Of every upload that may wait. For threads."""

    async def _begin(self, *, prefix: str, idempotency_key: str | None, announced: int) -> Upload:
        """A place for a body, of the same id for the same key; `announced` bytes are to come, 0 where nobody says.

        Raises ProblemError (507) where there is none, UnavailableError where the job could not be handed in anyway.
        """
        if announced > await anyio.to_thread.run_sync(spare, self._layout.uploads):
            raise _disk_full()
        keyed = idempotency_key is not None
        token = hashlib.sha256(str(idempotency_key).encode()).hexdigest()[:32] if keyed else uuid4().hex
        its_id = f"{prefix}{token}"
        if keyed and await anyio.to_thread.run_sync(self._folder(its_id).exists):  # its job may be there already
            await self._ledger.read(lambda ledger: ledger.redis.ping())
        else:
            await self._ledger.read(lambda ledger: ledger.check_room())
        return await anyio.to_thread.run_sync(
            lambda: Upload(self._layout, its_id, repeatable=keyed, folder=self._folder(its_id))
        )

    async def _acknowledge(self, upload: Upload, record: R) -> tuple[R, Placed | None]:
        """On disk, and its job in the ledger, when this returns. The record is the earlier one's where the same key,
        request and bytes were acknowledged before; the job is None where it was handed in long ago.

        Raises InvalidError, ConflictError, UnavailableError.
        """
        try:
            await anyio.to_thread.run_sync(upload.settle, record)
        except FileExistsError:
            return await self._acknowledged_before(record)
        try:
            return record, await self._hand_in(record)
        except BaseException:
            # It may have been written. What can be sent again stays, and the same job is handed in then.
            if not upload.repeatable:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(remove_tree, upload.folder)
            raise

    async def _acknowledged_before(self, record: R) -> tuple[R, Placed | None]:
        """Raises ConflictError, UnavailableError."""
        earlier = await self._once_settled(record.id)
        if not self._same(earlier, record):
            raise idempotency_conflict()
        if await anyio.to_thread.run_sync(self._waits, earlier):
            return earlier, await self._hand_in(earlier)
        return earlier, None

    async def _once_settled(self, its_id: str) -> R:
        """The record of an upload that another request is just writing down: its client has not waited for the answer.

        Raises UnavailableError where that takes long: who comes back as it says learns what came of the first.
        """
        until = time.monotonic() + _SETTLING_SECONDS
        while True:
            found = await anyio.to_thread.run_sync(self._settled, its_id)
            if found is not None:
                return found
            if time.monotonic() > until:
                detail = "An upload under this Idempotency-Key is just being written to disk."
                raise UnavailableError("upload_in_progress", detail, hint="Send it again under the same key.")
            await asyncio.sleep(_SETTLING_POLL)

    async def _hand_in(self, record: R) -> Placed | None:
        """Its job, once, however often this is called; None where that has ended and Redis has forgotten it.

        Raises ConflictError, UnavailableError.
        """
        point("submit.before")
        found = await self._write(record)
        if found is None:
            if not await self._remove_what_was_deleted(record):
                return None
            detail = "What was uploaded under this Idempotency-Key before has been deleted."
            raise ConflictError("upload_deleted", detail, hint="Take a new Idempotency-Key to upload it again.")
        point("submit.written")
        self._ring(LANES[self.kind])
        point("submit.rung")
        return found

    async def _write(self, record: R) -> Placed | None:
        """The job. None where the upload's id, which comes of its key, had another that was deleted since: this is a
        request from before that, and makes no second job.
        """
        traceparent = tracing.current().traceparent

        def write(ledger: Ledger) -> Placed | None:
            priority, max_seconds = terms_in(record)
            made = ledger.submit(
                self.kind,
                record.spec(),
                job_id=record.job,
                idempotency=(f"upload:{record.id}", "-"),  # its bytes are compared while they are there
                priority=priority,
                max_seconds=max_seconds,
                traceparent=traceparent,
            )
            with suppress(JobNotFound):
                return placed(ledger, record.job) if made.created else None
            return None

        return await self._ledger.write(write)

    async def recover(self) -> None:
        """Hand in the jobs of uploads that were cut off before theirs was. Raises UnavailableError."""
        for record in await anyio.to_thread.run_sync(lambda: list(self._records())):
            waits = await anyio.to_thread.run_sync(self._waits, record)
            if waits and await self._write(record) is None:
                await self._remove_what_was_deleted(record)

    async def _remove_what_was_deleted(self, record: R) -> bool:
        """Remove an upload whose job was deleted; others may be about it, too. One whose job has ended meanwhile, so
        that Redis may have forgotten it, is left: its record was on disk before that.
        """

        def remove() -> bool:
            if not self._waits(record) and self._settled(record.id) is not None:
                return False
            remove_tree(self._folder(record.id))
            return True

        return await anyio.to_thread.run_sync(remove)


def terms_in(record: Acknowledged) -> tuple[Priority, float | None]:
    """What its job is asked with."""
    return record.priority, record.max_seconds


def check_filled(upload: Upload, *, example: str) -> None:
    """Raises InvalidError for a body of no bytes; `example` is a command that sends some."""
    if upload.size == 0:
        raise InvalidError("empty_upload", "The upload is empty.", hint=f"`{example}` sends a file as the body.")


def _disk(error: OSError) -> ProblemError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _disk_full()
    return ProblemError("disk_error", f"The upload cannot be written: {error.strerror}.", hint="The log has more.")


def _disk_full() -> ProblemError:
    detail = "The server's disk has no space for the upload, beside what is kept for jobs that run."
    hint = "Free some space in the server's data directory, then upload again."
    return ProblemError("disk_full", detail, hint=hint, status=507)
