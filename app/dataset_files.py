"""The files of a dataset upload on their way to one archive on disk.

An archive is written as it comes. Files that are none, those of the MNIST family say, become members of one zip under
their own names, so that an import always reads an archive. Which it is, a file's first bytes tell, before any of it is
written.
"""

import unicodedata

import anyio.to_thread

from app.form_files import Buffer
from app.problems import InvalidError
from app.services.uploads import Upload
from app.zip_stream import ZipStream
from store.archive_kinds import HEAD_BYTES, Other, other_than_archive

EXAMPLE = "curl -F name=pets -F file=@pets.zip …"


class DatasetFiles:
    """`begin`, `put` and `end` for each file, then `finish`; `close` whatever has happened.

    They raise InvalidError: `unsupported_archive` for a file that is no archive and comes alone (at once where it is
    no form's), `too_many_files` for an archive that does not, `invalid_filename`, `duplicate_file`, `empty_upload`.
    """

    def __init__(self, upload: Upload, *, form: bool) -> None:
        self._upload, self._form = upload, form
        self._names: list[str | None] = []
        self._members: set[str] = set()
        self._head = bytearray()
        self._buffer: Buffer | None = None  # none until the head has told what the file is
        self._zip: ZipStream | None = None
        self._other: Other | None = None  # what the first file is, where it is no archive

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
        if len(self._names) == 1 and self._other is not None:
            raise _unsupported(self._other)
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
        elif not self._form:
            raise _unsupported(other)
        else:
            self._other = self._other or other
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


def _unsupported(other: Other) -> InvalidError:
    return InvalidError("unsupported_archive", f"{other.reason[0].upper()}{other.reason[1:]}.", hint=other.hint)


def _archive_with_others() -> InvalidError:
    detail = "The form holds an archive and other files."
    return InvalidError("too_many_files", detail, hint=f"One archive holds all of a dataset: `{EXAMPLE}`")
