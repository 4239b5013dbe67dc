"""A dataset upload from a request to disk: a raw body, or a form with a `name` and one file; memory stays flat."""

from collections.abc import AsyncIterator

import anyio
import anyio.to_thread
from starlette.requests import Request

from app import bodies
from app.multipart import MultipartReader, PartBegin, PartData, plain_filename
from app.problems import InvalidError
from app.services.datasets import UploadRecord
from app.services.uploads import CHUNK_BYTES, Upload, Uploads
from store.settings import Settings

_MAX_FIELD_BYTES = 1024
_MAX_FORM_OVERHEAD = 64 * 1024  # boundaries, headers and fields around the file
_MAX_PARTS = 8


async def receive(
    request: Request, uploads: Uploads, settings: Settings, *, name: str | None, key: str | None
) -> UploadRecord:
    """Raises ProblemError; a client that goes away midway raises ClientDisconnect. Either way the part is removed."""
    hint = f"RESNETD_MAX_DATASET_BYTES is {settings.max_dataset_bytes:,}."
    content_type = request.headers.get("content-type", "")
    is_form = content_type.partition(";")[0].strip().lower() == "multipart/form-data"
    limit = settings.max_dataset_bytes + (_MAX_FORM_OVERHEAD if is_form else 0)
    bodies.check_length(request, limit, hint=hint)
    upload = await uploads.begin(idempotency_key=key)
    try:
        pieces = bodies.stream(request, limit, hint=hint)
        if is_form:
            form_name, filename = await _from_form(pieces, content_type, upload)
            name = name or form_name
        else:
            filename = None
            await _copy(pieces, upload)
        return await uploads.accept(upload, name=name, filename=filename)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(upload.close)


class _Buffer:
    """Gathers small pieces, so that a thread writes a megabyte at a time."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._held: list[bytes] = []
        self._size = 0

    async def put(self, data: bytes) -> None:
        self._held.append(data)
        self._size += len(data)
        if self._size >= CHUNK_BYTES:
            await self.flush()

    async def flush(self) -> None:
        data, self._held, self._size = b"".join(self._held), [], 0
        if data:
            await anyio.to_thread.run_sync(self._upload.write, data)


async def _copy(pieces: AsyncIterator[bytes], upload: Upload) -> None:
    buffer = _Buffer(upload)
    async for piece in pieces:
        await buffer.put(piece)
    await buffer.flush()


async def _from_form(pieces: AsyncIterator[bytes], content_type: str, upload: Upload) -> tuple[str | None, str | None]:
    """Write the form's one file; returns the `name` field and the file's name."""
    reader = MultipartReader(content_type, max_parts=_MAX_PARTS)
    buffer = _Buffer(upload)
    part = PartBegin("", None, "")
    name: bytearray | None = None
    filename: str | None = None
    files = 0
    async for piece in pieces:
        for event in reader.feed(piece):
            if isinstance(event, PartBegin):
                part = event
                files += part.is_file
                if part.is_file:
                    filename = part.filename
                elif part.name == "name":
                    name = bytearray()
                _check(part, files)
            elif isinstance(event, PartData) and part.is_file:
                await buffer.put(event.data)
            elif isinstance(event, PartData) and name is not None:
                name += event.data[: _MAX_FIELD_BYTES - len(name)]
    reader.close()
    await buffer.flush()
    if files == 0:
        raise InvalidError("no_file", "The form holds no file.", hint="`curl -F name=pets -F file=@pets.zip …`")
    return (None if name is None else name.decode("utf-8", "replace")), (plain_filename(filename or "") or None)


def _check(part: PartBegin, files: int) -> None:
    if files > 1:
        raise InvalidError(
            "too_many_files", "The form holds more than one file.", hint="Put the images in one zip or tar archive."
        )
    if not part.is_file and part.name != "name":
        raise InvalidError(
            "unknown_field",
            f"The form's field {part.name[:50]!r} is neither a file nor `name`.",
            hint="Send the file with a file name: `curl -F name=pets -F file=@pets.zip …`",
        )
