"""Zip and tar archives that nobody vouches for: planned from their directory, read as streams, never extracted."""

import bz2
import errno
import gzip
import io
import itertools
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from store.archive_kinds import (
    ARCHIVE_HINT,
    GZIP,
    HEAD_BYTES,
    TAR_BLOCK,
    XZ,
    ZIP,
    Other,
    is_bzip2,
    other_than_archive,
    other_than_tar,
)
from worker.importer.limits import LARGEST_READ, SMALL, Limits, broken, not_an_archive, too_large, unsafe
from worker.importer.names import Parts, is_litter, safe_parts

_IDX_HINT = "Send the files of images and those of labels in one upload, or in one zip or tar."
Tick = Callable[[int], None]  # called with the number of members seen so far

# What a damaged stream raises, from the three decompressors and the two containers.
STREAM_ERRORS = (EOFError, OSError, lzma.LZMAError, zlib.error, zipfile.BadZipFile, tarfile.TarError)


@dataclass(frozen=True)
class Member:
    """A file of the archive. `offset` orders members as they lie, which is the cheap order to read them in."""

    parts: Parts
    size: int
    offset: int
    handle: Any

    @property
    def name(self) -> str:
        return "/".join(self.parts)


class Archive(Protocol):
    """`files` without litter, `folders` as far as the archive names them."""

    files: list[Member]
    folders: set[Parts]

    def open(self, member: Member) -> IO[bytes]: ...

    def close(self) -> None: ...


def open_archive(path: Path, limits: Limits, tick: Tick) -> Archive:
    """The archive at `path`, told by its content. Raises JobRefused for what is none, is broken, or breaks a limit."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise not_an_archive("the upload is empty (0 bytes)", ARCHIVE_HINT)
    _refuse(other_than_archive(head, whole=len(head) < HEAD_BYTES))
    try:
        return ZipArchive(path, limits, tick) if head.startswith(ZIP) else TarArchive(path, limits, tick)
    # All that the libraries raise over hostile headers; NotImplementedError: a zip version that zipfile cannot read.
    except (*STREAM_ERRORS, ValueError, LookupError, ArithmeticError, struct.error, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
            raise  # the machine's trouble, not the archive's; EINVAL is a seek to where a damaged header pointed
        raise broken(str(error) or type(error).__name__) from error


def _refuse(other: Other | None) -> None:
    if other is not None:
        raise not_an_archive(other.reason, _IDX_HINT if other.kind == "idx" else ARCHIVE_HINT)


class ZipArchive:
    def __init__(self, path: Path, limits: Limits, tick: Tick) -> None:
        self._zip = zipfile.ZipFile(path)
        self.files: list[Member] = []
        self.folders: set[Parts] = set()
        try:
            self._plan(path.stat().st_size, limits, tick)
        except BaseException:
            self.close()
            raise

    def _plan(self, packed: int, limits: Limits, tick: Tick) -> None:
        infos = self._zip.infolist()
        if len(infos) > limits.members:
            raise too_large(f"it has {len(infos):,} members, {limits.members:,} are allowed")
        for count, info in enumerate(infos):
            tick(count)
            name = _zip_name(info)
            parts = safe_parts(name)
            _check_zip_member(info, limits)
            if is_litter(parts) or not parts:
                continue
            if name.endswith("/"):
                self.folders.add(parts)
            else:
                self.files.append(Member(parts, info.file_size, info.header_offset, info))
        total = sum(info.file_size for info in infos)
        if total > limits.unpacked(packed):
            raise too_large(f"it would unpack to {total:,} bytes")
        _refuse_overlap(infos, self._zip.start_dir)

    def open(self, member: Member) -> IO[bytes]:
        """The stream gives at most `member.size` bytes, whatever was packed, and checks them at its end."""
        try:
            stream: IO[bytes] = self._zip.open(member.handle)
        # zipfile's own words: NotImplementedError for an unknown compression, RuntimeError for an encrypted member.
        except (NotImplementedError, RuntimeError) as error:
            raise not_an_archive(
                f"{member.name} is compressed in a way that cannot be read", "Make the zip with `deflate` or `store`."
            ) from error
        except zipfile.BadZipFile as error:
            raise broken(f"{member.name}: {error}") from error
        return stream

    def close(self) -> None:
        self._zip.close()


def _zip_name(info: zipfile.ZipInfo) -> str:
    """A member's name with slashes. Windows PowerShell's Compress-Archive writes backslashes, and no slash.

    A name with both is left to be refused: there a backslash may be half of a character of another alphabet.
    """
    name = info.orig_filename
    from_windows = info.create_system == 0 and "/" not in name[:-1]
    return name.replace("\\", "/") if from_windows else name


def _check_zip_member(info: zipfile.ZipInfo, limits: Limits) -> None:
    if info.flag_bits & 0x1:
        raise unsafe(info.filename, "is encrypted")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise unsafe(info.filename, "is a link or a device")
    if info.file_size > SMALL and info.file_size > limits.ratio * info.compress_size:
        raise too_large(f"{info.filename[:200]} unpacks to over {limits.ratio} times its size")


def _refuse_overlap(infos: list[zipfile.ZipInfo], directory: int) -> None:
    """Members that share bytes are how a small archive unpacks to petabytes."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    for info, following in itertools.zip_longest(ordered, ordered[1:]):
        end = directory if following is None else following.header_offset
        if info.header_offset + 30 + info.compress_size > end:
            raise unsafe(info.filename, "overlaps another member")


class TarArchive:
    """A tar, plain or compressed. Compressed ones are read from the front once to plan and once to import."""

    def __init__(self, path: Path, limits: Limits, tick: Tick) -> None:
        self._stream = Bounded(_decompressed(path), limits.unpacked(path.stat().st_size))
        self.files: list[Member] = []
        self.folders: set[Parts] = set()
        try:
            self._tar = self._open_tar()
            self._plan(limits, tick)
        except BaseException:
            self._stream.close()
            raise

    def _open_tar(self) -> tarfile.TarFile:
        _refuse(other_than_tar(self._stream.read(TAR_BLOCK)))
        self._stream.seek(0)
        return tarfile.open(fileobj=self._stream, mode="r:")

    def _plan(self, limits: Limits, tick: Tick) -> None:
        end = 0
        for count, info in enumerate(self._tar, start=1):
            tick(count)
            if count > limits.members:
                raise too_large(f"it has more than {limits.members:,} members")
            parts = safe_parts(info.name)
            if not (info.isdir() or info.isreg()) or info.issparse():
                raise unsafe(info.name, "is a link, a device or a sparse file")
            end = info.offset_data + (0 if info.isdir() else -(-info.size // 512) * 512)
            if is_litter(parts) or not parts:
                continue
            if info.isdir():
                self.folders.add(parts)
            else:
                self.files.append(Member(parts, info.size, info.offset_data, info))
        # tarfile takes a damaged or missing header for the end of the archive; a real end is a block of zeros.
        self._stream.seek(end)
        if self._stream.read(512) != bytes(512):
            raise broken("it ends early or is damaged in the middle")

    def open(self, member: Member) -> IO[bytes]:
        stream = self._tar.extractfile(member.handle)
        if stream is None:
            raise broken(f"{member.name} is not a file")
        return stream

    def close(self) -> None:
        self._tar.close()
        self._stream.close()


def _decompressed(path: Path) -> io.BufferedIOBase:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(GZIP):
        return gzip.open(path, "rb")
    if is_bzip2(head):
        return bz2.open(path, "rb")
    if head.startswith(XZ):
        return lzma.open(path, "rb")
    return path.open("rb")


class Bounded(io.BufferedIOBase):
    """A stream that refuses to go beyond `limit` bytes, and to be read in pieces that no honest header needs."""

    def __init__(self, stream: io.BufferedIOBase, limit: int) -> None:
        self._stream, self._limit = stream, limit

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= LARGEST_READ:
            raise broken("it has a header of impossible size")
        self._check(self._stream.tell() + size)
        return self._stream.read(size)

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
