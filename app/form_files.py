"""Uploads from a request to disk, as the raw body or as parts of a form beside plain fields; memory stays flat."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

import anyio.to_thread

from app import bodies
from app.multipart import MultipartReader, PartBegin, PartData
from app.problems import InvalidError
from app.schemas.jobs import TermsRequest
from app.services.submissions import Terms
from app.services.uploads import CHUNK_BYTES, Upload

MAX_FORM_OVERHEAD = 64 * 1024  # boundaries and headers around files and fields
_MAX_FIELDS = 15
#: The fields of a form that its job is asked with, and the most bytes of each.
TERM_FIELDS = dict.fromkeys(TermsRequest.model_fields, 64)


class Files(Protocol):
    """Where a form's files go, one after another. Each may raise ProblemError."""

    async def begin(self, name: str | None) -> None:
        """A file comes; `name` is no path."""

    async def put(self, data: bytes) -> None: ...

    async def end(self) -> None:
        """The file was whole."""


async def copy(pieces: AsyncIterator[bytes], upload: Upload) -> None:
    """Write a raw body."""
    buffer = Buffer(upload.write)
    async for piece in pieces:
        await buffer.put(piece)
    await buffer.flush()


async def read_form(
    pieces: AsyncIterator[bytes], content_type: str, upload: Upload, *, fields: Mapping[str, int], example: str
) -> tuple[dict[str, str], str | None]:
    """Write the form's one file; returns the fields that there are, and the file's name. Raises like `read_files`."""
    one = _OneFile(upload)
    values = await read_files(pieces, content_type, one, fields=fields, most=1, example=example)
    return values, one.name


async def read_files(
    pieces: AsyncIterator[bytes],
    content_type: str,
    files: Files,
    *,
    fields: Mapping[str, int],
    most: int,
    example: str,
) -> dict[str, str]:
    """Hand on each of the form's files, `most` of them at most; returns the fields that there are.

    `fields`: the most bytes of each; a part with such a name is that field, also where it is sent as a file. Raises
    InvalidError for anything else; `example` is a command that does it right.
    """
    reader = MultipartReader(content_type, max_parts=most + _MAX_FIELDS)
    part = PartBegin("", None, "")
    found: dict[str, bytearray] = {}
    count = 0
    async for piece in pieces:
        for event in reader.feed(piece):
            if isinstance(event, PartBegin):
                part = event
                if part.name in fields:
                    found[part.name] = bytearray()
                else:
                    count += 1
                    _check(part, count, most, fields, example)
                    await files.begin(part.filename or None)
            elif part.name not in fields:
                await (files.put(event.data) if isinstance(event, PartData) else files.end())
            elif isinstance(event, PartData):
                found[part.name] += event.data
                if len(found[part.name]) > fields[part.name]:
                    detail = f"The form's field {part.name!r} is longer than {fields[part.name]:,} bytes"
                    raise InvalidError("field_too_long", f"{detail}.", hint=f"`{example}`")
    reader.close()
    if count == 0:
        raise InvalidError("no_file", "The form holds no file.", hint=f"`{example}`")
    return {name: _text(name, value) for name, value in found.items()}


def _text(name: str, value: bytearray) -> str:
    """A field's text, without the mark that editors put in front of it. Raises InvalidError."""
    try:
        return value.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        detail = f"The form's field {name!r} is not UTF-8 text: {error.reason} at byte {error.start}"
        raise InvalidError("not_utf8", f"{detail}.", hint="Save the file as UTF-8.") from error


def _check(part: PartBegin, count: int, most: int, fields: Mapping[str, int], example: str) -> None:
    if not part.is_file:
        known = ", ".join(f"`{name}`" for name in fields)
        raise InvalidError(
            "unknown_field",
            f"The form's field {part.name[:50]!r} is neither a file nor one of {known}.",
            hint=f"Send the file with a file name: `{example}`",
        )
    if count > most:
        held = "more than one file" if most == 1 else f"more than {most} files"
        instead = "One a request" if most == 1 else "Put them into one archive"
        raise InvalidError("too_many_files", f"The form holds {held}.", hint=f"{instead}: `{example}`")


def terms_of(query: Mapping[str, object], fields: dict[str, str]) -> Terms:
    """What an upload's job is asked with: by the query, else by the form, of whose fields they are taken out.

    Raises InvalidError.
    """
    asked: dict[str, object] = {name: fields.pop(name) for name in TERM_FIELDS if name in fields}
    return bodies.validate(TermsRequest, asked | dict(query)).terms()


class _OneFile:
    def __init__(self, upload: Upload) -> None:
        self.name: str | None = None
        self._buffer = Buffer(upload.write)

    async def begin(self, name: str | None) -> None:
        self.name = name

    async def put(self, data: bytes) -> None:
        await self._buffer.put(data)

    async def end(self) -> None:
        await self._buffer.flush()


class Buffer:
    """Gathers small pieces, so that a thread writes a megabyte at a time."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
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
            await anyio.to_thread.run_sync(self._write, data)
