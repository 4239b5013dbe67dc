"""The files of a dataset upload on their way to one archive on disk.

An archive is written as it comes. IDX files, and text beside them, become members of one zip under their own names, so
that an import always reads an archive. Which it is, a file's first bytes tell, before any of it is written; what is
neither is refused then.
"""

import unicodedata

import anyio.to_thread

from app.form_files import Buffer
from app.problems import InvalidError
from app.services.uploads import Upload
from app.zip_stream import ZipStream
from store.archive_kinds import ARCHIVE_HINT, HEAD_BYTES, Other, other_than_archive

EXAMPLE = "curl -F name=pets -F file=@pets.zip …"
_IDX_HINT = (
    "Send them together: `curl -F name=mine -F f=@train-images-idx3-ubyte.gz -F f=@train-labels-idx1-ubyte.gz …`, "
    "`resnetd datasets upload` with all of them, or one zip or tar of them."
)
_MEMBERS = frozenset({"idx", "text"})  # the kinds of files that a dataset may be made of, text for the names of classes


class DatasetFiles:
    """`begin`, `put` and `end` for each file, then `finish`; `close` whatever has happened.

    They raise InvalidError: `unsupported_archive` for a file that is nothing of a dataset, or of one that needs others
    and has none (both at once where it is no form's), `too_many_files` for an archive that comes with others,
    `invalid_filename`, `duplicate_file`, `empty_upload`.
    """

    def __init__(self, upload: Upload, *, form: bool) -> None:
        self._upload, self._form = upload, form
        self._names: list[str | None] = []
        self._members: set[str] = set()
        self._head = bytearray()
        self._buffer: Buffer | None = None  # none until the head has told what the file is
        self._zip: ZipStream | None = None
        self._others: list[Other] = []  # what the files are, where they are no archive

    @property
    def filename(self) -> str | None:
        """The one file's name; several have none together."""
        return self._names[0] if len(self._names) == 1 else None

    async def begin(self, name: str | None) -> None:
        if self._names and self._zip is None:
            raise _archive_with_others()
        self._names.append(name)
        self._head.clear()
        self._buffer = None

    async def put(self, data: bytes) -> None:
        if self._buffer is not None:
            await self._buffer.put(data)
            return
        self._head += data
        if len(self._head) >= HEAD_BYTES:
            await self._decide(whole=False)

    async def end(self) -> None:
        buffer = self._buffer or await self._decide(whole=True)
        await buffer.flush()
        if self._zip is not None:
            await anyio.to_thread.run_sync(self._zip.end)

    async def finish(self) -> None:
        if self._zip is None:
            return
        if len(self._names) == 1 or not any(other.kind == "idx" for other in self._others):
            raise _unsupported(self._others[0], self._names[0])
        await anyio.to_thread.run_sync(self._zip.finish)

    def close(self) -> None:
        if self._zip is not None:
            self._zip.abandon()

    async def _decide(self, *, whole: bool) -> Buffer:
        head = bytes(self._head)
        name = self._names[-1]
        if not head and self._form:
            detail = f"The file {name!r} is empty." if name else "The upload is empty."
            raise InvalidError("empty_upload", detail, hint=f"`{EXAMPLE}`")
        other = other_than_archive(head, whole=whole) if head else None
        if other is None:
            if self._zip is not None:
                raise _archive_with_others()
            self._buffer = Buffer(self._upload.write)
        elif not self._form or other.kind not in _MEMBERS:
            raise _unsupported(other, name)
        else:
            self._others.append(other)
            self._buffer = await self._member(name or "")
        await self._buffer.put(head)
        return self._buffer

    async def _member(self, name: str) -> Buffer:
        name = unicodedata.normalize("NFC", name)
        # It is a name for showing (`plain_filename`) and no path; these are what an import would refuse as one.
        if name.strip() in {"", ".", ".."} or (name[1:2] == ":" and name[:1].isalpha()):
            detail = f"A file of the form is called {name!r}, which cannot be a file's name."
            raise InvalidError("invalid_filename", detail, hint="Send each file under its own name: `-F f=@labels.gz`.")
        if name in self._members:
            hint = "Give one another name: `-F 'f=@labels.gz;filename=test-labels.gz'`."
            raise InvalidError("duplicate_file", f"Two files of the form are called {name!r}.", hint=hint)
        self._members.add(name)
        if self._zip is None:
            self._zip = ZipStream(self._upload.write)
        await anyio.to_thread.run_sync(self._zip.begin, name)
        return Buffer(self._zip.write)


def _unsupported(other: Other, name: str | None) -> InvalidError:
    reason = f"{name!r}: {other.reason}" if name else f"{other.reason[0].upper()}{other.reason[1:]}"
    return InvalidError("unsupported_archive", f"{reason}.", hint=_IDX_HINT if other.kind == "idx" else ARCHIVE_HINT)


def _archive_with_others() -> InvalidError:
    detail = "The form holds an archive and other files."
    return InvalidError("too_many_files", detail, hint=f"One archive holds all of a dataset: `{EXAMPLE}`")
