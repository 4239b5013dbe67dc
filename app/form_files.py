"""A file from a request to disk, as the raw body or as a form's one file beside plain fields; memory stays flat."""

from collections.abc import AsyncIterator, Mapping

import anyio.to_thread

from app.multipart import MultipartReader, PartBegin, PartData, plain_filename
from app.problems import InvalidError
from app.services.uploads import CHUNK_BYTES, Upload

MAX_FORM_OVERHEAD = 64 * 1024  # boundaries and headers around file and fields
_MAX_PARTS = 16


async def copy(pieces: AsyncIterator[bytes], upload: Upload) -> None:
    """Write a raw body."""
    buffer = _Buffer(upload)
    async for piece in pieces:
        await buffer.put(piece)
    await buffer.flush()


async def read_form(
    pieces: AsyncIterator[bytes], content_type: str, upload: Upload, *, fields: Mapping[str, int], example: str
) -> tuple[dict[str, str], str | None]:
    """Write the form's one file; returns the fields that there are, and the file's name.

    `fields`: the most bytes of each; a part with such a name is that field, also where it is sent as a file. Raises
    InvalidError for anything else; `example` is a command that does it right.
    """
    reader = MultipartReader(content_type, max_parts=_MAX_PARTS)
    buffer = _Buffer(upload)
    part = PartBegin("", None, "")
    found: dict[str, bytearray] = {}
    filename: str | None = None
    files = 0
    async for piece in pieces:
        for event in reader.feed(piece):
            if isinstance(event, PartBegin):
                part = event
                if part.name in fields:
                    found[part.name] = bytearray()
                else:
                    files += 1
                    filename = part.filename
                    _check(part, files, fields, example)
            elif isinstance(event, PartData) and part.name in fields:
                found[part.name] += event.data
                if len(found[part.name]) > fields[part.name]:
                    detail = f"The form's field {part.name!r} is longer than {fields[part.name]:,} bytes"
                    raise InvalidError("field_too_long", f"{detail}.", hint=f"`{example}`")
            elif isinstance(event, PartData):
                await buffer.put(event.data)
    reader.close()
    await buffer.flush()
    if files == 0:
        raise InvalidError("no_file", "The form holds no file.", hint=f"`{example}`")
    values = {name: bytes(value).decode("utf-8", "replace") for name, value in found.items()}
    return values, plain_filename(filename or "") or None


def _check(part: PartBegin, files: int, fields: Mapping[str, int], example: str) -> None:
    if not part.is_file:
        known = ", ".join(f"`{name}`" for name in fields)
        raise InvalidError(
            "unknown_field",
            f"The form's field {part.name[:50]!r} is neither a file nor one of {known}.",
            hint=f"Send the file with a file name: `{example}`",
        )
    if files > 1:
        raise InvalidError("too_many_files", "The form holds more than one file.", hint=f"One a request: `{example}`")


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
