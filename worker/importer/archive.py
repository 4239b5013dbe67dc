"""Zip and tar archives that nobody vouches for: planned from their directory, read as streams, never extracted."""

import io
import itertools
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from store.archive_kinds import (
    ARCHIVE_HINT,
    HEAD_BYTES,
    TAR_BLOCK,
    ZIP,
    Other,
    other_than_archive,
    other_than_tar,
)
from worker.importer.limits import SMALL, Limits, broken, not_an_archive, too_large, unsafe
from worker.importer.names import Parts, is_litter, safe_parts
from worker.importer.streams import STREAM_ERRORS, Bounded, decompressed, machine_failed, watched
from worker.importer.zip_names import zip_name

_IDX_HINT = "Send the files of images and those of labels in one upload, or in one zip or tar."
Tick = Callable[[int], None]  # called with the number of members seen so far

# All that the libraries raise over hostile headers. NotImplementedError: a zip version that zipfile cannot read;
# RecursionError: a tar's headers about headers about headers.
_HEADER_ERRORS = (
    *STREAM_ERRORS,
    ValueError,
    LookupError,
    ArithmeticError,
    struct.error,
    NotImplementedError,
    RecursionError,
)


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


def open_archive(path: Path, limits: Limits, tick: Tick, moved: Callable[[], None]) -> Archive:
    """The archive at `path`, told by its content. Raises JobRefused for what is none, is broken, or breaks a limit.

    `moved` is called before each piece of the file is read, as long as the archive is in use.
    """
    file = watched(path, moved)
    try:
        head = file.read(HEAD_BYTES)
        file.seek(0)
        if not head:
            raise not_an_archive("the upload is empty (0 bytes)", ARCHIVE_HINT)
        _refuse(other_than_archive(head, whole=len(head) < HEAD_BYTES))
        packed = path.stat().st_size
        if head.startswith(ZIP):
            return ZipArchive(file, packed, limits, tick)
        return TarArchive(file, head, packed, limits, tick)
    except _HEADER_ERRORS as error:
        file.close()
        if machine_failed(error):
            raise
        raise broken(str(error) or type(error).__name__) from error
    except BaseException:
        file.close()
        raise


def _refuse(other: Other | None) -> None:
    if other is not None:
        raise not_an_archive(other.reason, _IDX_HINT if other.kind == "idx" else ARCHIVE_HINT)


class ZipArchive:
    def __init__(self, file: io.BufferedReader, packed: int, limits: Limits, tick: Tick) -> None:
        self._file, self._zip = file, zipfile.ZipFile(file)
        self.files: list[Member] = []
        self.folders: set[Parts] = set()
        self._plan(packed, limits, tick)

    def _plan(self, packed: int, limits: Limits, tick: Tick) -> None:
        infos = self._zip.infolist()
        if len(infos) > limits.members:
            raise too_large(f"it has {len(infos):,} members, {limits.members:,} are allowed")
        for count, info in enumerate(infos):
            tick(count)
            name = zip_name(info)
            parts = safe_parts(name)
            _check_zip_member(name, info, limits)
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
            return self._zip.open(member.handle)
        # zipfile's own words: NotImplementedError for an unknown compression, RuntimeError for an encrypted member.
        except (NotImplementedError, RuntimeError) as error:
            raise not_an_archive(
                f"{member.name} is compressed in a way that cannot be read", "Make the zip with `deflate` or `store`."
            ) from error
        except (zipfile.BadZipFile, ValueError) as error:  # ValueError: the name at the member itself is no UTF-8
            raise broken(f"{member.name}: {error}") from error

    def close(self) -> None:
        self._zip.close()
        self._file.close()


def _check_zip_member(name: str, info: zipfile.ZipInfo, limits: Limits) -> None:
    if info.flag_bits & 0x1:
        raise unsafe(name, "is encrypted")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise unsafe(name, "is a link or a device")
    if info.file_size > SMALL and info.file_size > limits.ratio * info.compress_size:
        raise too_large(f"{name[:200]} unpacks to over {limits.ratio} times its size")


def _refuse_overlap(infos: list[zipfile.ZipInfo], directory: int) -> None:
    """Members that share bytes are how a small archive unpacks to petabytes."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    if ordered and ordered[0].header_offset < 0:
        raise broken("its beginning is missing")
    for info, following in itertools.zip_longest(ordered, ordered[1:]):
        end = directory if following is None else following.header_offset
        if info.header_offset + 30 + info.compress_size > end:
            raise unsafe(zip_name(info), "overlaps another member")


class TarArchive:
    """A tar, plain or compressed. To go back in a compressed one is to decompress it from the front again."""

    def __init__(self, file: io.BufferedReader, head: bytes, packed: int, limits: Limits, tick: Tick) -> None:
        self._file = file
        self._stream = Bounded(decompressed(file, head), limits.unpacked(packed))
        self.files: list[Member] = []
        self.folders: set[Parts] = set()
        _refuse(other_than_tar(self._stream.read(TAR_BLOCK)))
        self._stream.seek(0)
        self._tar = tarfile.TarFile(fileobj=self._stream, encoding="utf-8")
        self._plan(limits, tick)

    def _plan(self, limits: Limits, tick: Tick) -> None:
        end = 0
        for count, info in enumerate(self._tar, start=1):
            tick(count)
            if count > limits.members:
                raise too_large(f"it has more than {limits.members:,} members")
            parts = safe_parts(info.name)
            if not (info.isdir() or info.isreg()) or info.issparse():
                raise unsafe(info.name, "is a link, a device or a sparse file")
            # Sizes below zero would lead back, and those of a pax header need not be what tarfile goes on behind.
            if info.size < 0 or info.offset < end:
                raise unsafe(info.name, "overlaps another member")
            end = info.offset_data + (0 if info.isdir() else -(-info.size // TAR_BLOCK) * TAR_BLOCK)
            if is_litter(parts) or not parts:
                continue
            if info.isdir():
                self.folders.add(parts)
            else:
                self.files.append(Member(parts, info.size, info.offset_data, info))
        # tarfile takes a damaged or missing header for the end of the archive; a real end is a block of zeros. It is
        # what tarfile read last: not read again, for which the stream might have to be decompressed once more.
        if self._stream.tell() != end + TAR_BLOCK or self._stream.last_read != bytes(TAR_BLOCK):
            raise broken("it ends early or is damaged in the middle")

    def open(self, member: Member) -> IO[bytes]:
        stream = self._tar.extractfile(member.handle)
        if stream is None:
            raise broken(f"{member.name} is not a file")
        return stream

    def close(self) -> None:
        self._tar.close()
        self._stream.close()
        self._file.close()
