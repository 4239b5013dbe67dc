"""An upload's bytes as streams: one that tells that it moves, those that decompress it, and one with bounds."""

import bz2
import errno
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from store.archive_kinds import GZIP, XZ, is_bzip2
from worker.importer.limits import LARGEST_READ, broken, too_large

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# What a damaged stream raises, from the three decompressors and the two containers.
STREAM_ERRORS = (EOFError, OSError, lzma.LZMAError, zlib.error, zipfile.BadZipFile, tarfile.TarError)


def machine_failed(error: BaseException) -> bool:
    """Whether the machine is at fault, not the archive. EINVAL is a seek to where a damaged header points."""
    return isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}


def watched(path: Path, moved: Callable[[], None]) -> io.BufferedReader:
    """The file at `path`; `moved` is called before each piece of it is read. What `moved` raises ends the reading.

    It lies below decompressors and containers, so that what they skip and what they read again counts too.
    """
    return io.BufferedReader(_Watched(path, moved))


class _Watched(io.FileIO):
    def __init__(self, path: Path, moved: Callable[[], None]) -> None:
        super().__init__(path)
        self._moved = moved

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        self._moved()
        return super().readinto(buffer)


def decompressed(file: io.BufferedReader, head: bytes) -> io.BufferedIOBase:
    """What is in `file`, which begins with `head`: without its gzip, bzip2 or xz, where it has one."""
    if head.startswith(GZIP):
        return gzip.GzipFile(fileobj=file)
    if is_bzip2(head):
        return bz2.BZ2File(file)
    if head.startswith(XZ):
        return lzma.LZMAFile(file)
    return file


class Bounded(io.BufferedIOBase):
    """A stream that refuses to go beyond `limit` bytes, and to be read in pieces that no honest header needs.

    `last_read` is what the last read gave.
    """

    def __init__(self, stream: io.BufferedIOBase, limit: int) -> None:
        self._stream, self._limit = stream, limit
        self.last_read = b""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= LARGEST_READ:
            raise broken("it has a header of impossible size")
        self._check(self._stream.tell() + size)
        self.last_read = self._stream.read(size)
        return self.last_read

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("only positions from the start")
        self._check(offset)
        return self._stream.seek(offset)

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        self._stream.close()
        super().close()

    def _check(self, position: int) -> None:
        # A tar is padded to whole records of 10 KiB, so the last read may ask for more than there is.
        if position > self._limit + LARGEST_READ:
            raise too_large(f"it would unpack to more than {self._limit:,} bytes")
