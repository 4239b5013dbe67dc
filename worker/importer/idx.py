"""The IDX files of the MNIST family (LeCun's format): big-endian header, then unsigned bytes; gzipped or not.

A header is two zero bytes, the element type (8: unsigned byte), the number of dimensions, and each dimension as four
bytes. Labels have one dimension, grey images three (N, H, W), colour images four (N, H, W, 3).
"""

import gzip
import math
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from store import class_names
from store.archive_kinds import GZIP, is_idx
from store.dataset_writer import MAX_ARRAY_IMAGE_PIXELS, Sample
from store.datasets import FileNote, SplitName
from worker.importer.archive import Archive, Member
from worker.importer.limits import Limits
from worker.importer.streams import STREAM_ERRORS, Bounded, machine_failed
from worker.job_process import JobRefused

CLASSES_FILE = "classes.txt"
_LOOK_AT_ALL = 64  # files; in a larger archive only those named like IDX are opened
_MAX_LABELS = 50_000_000
_HINT = "Send the files of images and of labels together, those of train and those of test, under their usual names."


@dataclass(frozen=True)
class IdxFile:
    member: Member
    shape: tuple[int, ...]
    header_bytes: int

    @property
    def split(self) -> SplitName | None:
        name = self.member.parts[-1].lower()
        if "train" in name:
            return "train"
        if "t10k" in name or "test" in name:
            return "test"
        return "val" if "val" in name else None


@dataclass(frozen=True)
class Pair:
    """The images and the labels of one split; split None where the names do not tell it."""

    split: SplitName | None
    images: IdxFile
    labels: IdxFile


@dataclass(frozen=True)
class IdxPlan:
    """`labels[i]` are pair i's, int64; `values[k]` is the number in the files that class k stands for."""

    pairs: tuple[Pair, ...]
    labels: tuple[npt.NDArray[np.int64], ...]
    values: tuple[int, ...]
    classes: tuple[str, ...]
    skipped: tuple[FileNote, ...]

    @property
    def images(self) -> int:
        return sum(len(labels) for labels in self.labels)


def plan_idx(archive: Archive, limits: Limits) -> IdxPlan | None:
    """The pairs of IDX files in the archive, None where there are none. Raises JobRefused where they do not fit.

    IDX knows classes as numbers only. Their names are the lines of a `classes.txt` beside the files (the first line
    names 0), else the numbers themselves.
    """
    files = _find(archive, limits)
    if not files:
        return None
    pairs = sorted(pair_up(files), key=lambda pair: pair.labels.member.offset)
    used = {file.member.parts for file in files}
    names = next((m for m in archive.files if m.parts[-1].lower() == CLASSES_FILE), None)
    lines = None if names is None else _read_lines(archive, names)
    labels = tuple(_read_labels(archive, pair.labels, limits) for pair in pairs)
    values = tuple(int(value) for value in np.unique(np.concatenate(labels)))
    if names is not None and lines is not None:
        used.add(names.parts)
        classes = _class_names(names, lines, values)
        values = tuple(range(len(classes)))
    else:
        classes = tuple(str(value) for value in values)
    skipped = tuple(
        FileNote(file=m.name, reason="not an IDX file or classes.txt") for m in archive.files if m.parts not in used
    )
    return IdxPlan(tuple(pairs), labels, values, classes, skipped)


def pair_up(files: Sequence[IdxFile]) -> tuple[Pair, ...]:
    """Images with labels of the same split, all images of one size. Raises JobRefused."""
    pairs: dict[SplitName | None, dict[bool, IdxFile]] = {}
    for file in files:
        of_split = pairs.setdefault(file.split, {})
        is_images = len(file.shape) > 1
        if is_images in of_split:
            raise _bad(f"{of_split[is_images].member.name} and {file.member.name} are for the same split")
        of_split[is_images] = file
    found = []
    for split, of_split in pairs.items():
        if len(of_split) != 2:
            alone = next(iter(of_split.values()))
            raise _bad(f"{alone.member.name} has no {'labels' if True in of_split else 'images'} beside it")
        images, labels = of_split[True], of_split[False]
        if images.shape[0] != labels.shape[0]:
            raise _bad(
                f"{images.member.name} holds {images.shape[0]:,} images, but {labels.member.name} "
                f"holds {labels.shape[0]:,} labels"
            )
        found.append(Pair(split, images, labels))
    if len({pair.images.shape[1:] for pair in found}) > 1:
        raise _bad("the images of the splits differ in size")
    return tuple(found)


def samples(archive: Archive, plan: IdxPlan, limits: Limits) -> Iterator[Sample]:
    """Every image in the archive's order, as pixels. Raises JobRefused where a file ends early or goes on too long."""
    index_of = {value: index for index, value in enumerate(plan.values)}
    in_order = sorted(zip(plan.pairs, plan.labels, strict=True), key=lambda of: of[0].images.member.offset)
    for pair, labels in in_order:
        shape = pair.images.shape[1:] if len(pair.images.shape) == 4 else (*pair.images.shape[1:], 1)
        size, mode = (shape[1], shape[0]), "L" if shape[2] == 1 else "RGB"
        with _open(archive, pair.images.member, limits) as stream:
            _read_exactly(stream, pair.images.header_bytes, pair.images)
            for row, label in enumerate(labels):
                data = _read_exactly(stream, math.prod(shape), pair.images)
                yield Sample(
                    key=f"{pair.split or 'all'}/{row:09d}",
                    split=pair.split,
                    label=index_of[int(label)],
                    encoded=None,
                    pixels=np.frombuffer(data, dtype=np.uint8).reshape(shape),
                    size=size,
                    mode=mode,
                )
            _expect_end(stream, pair.images)


def _find(archive: Archive, limits: Limits) -> list[IdxFile]:
    look_at_all = len(archive.files) <= _LOOK_AT_ALL
    found = []
    for member in sorted(archive.files, key=lambda member: member.offset):
        if look_at_all or re.search(r"idx|ubyte", member.parts[-1].lower()):
            file = _look(archive, member, limits)
            if file is not None:
                found.append(file)
    return found


def _look(archive: Archive, member: Member, limits: Limits) -> IdxFile | None:
    try:
        with _open(archive, member, limits) as stream:
            head = stream.read(4)
            return _header(member, head, stream) if is_idx(head) else None
    # A damaged image is none of this module's business; a damaged IDX file is refused as what it claims to be.
    except STREAM_ERRORS as error:
        if machine_failed(error):
            raise
        return None


def _header(member: Member, head: bytes, stream: IO[bytes]) -> IdxFile:
    if head[2] != 8 or head[3] not in {1, 3, 4}:
        raise _bad(f"{member.name} holds neither labels nor images as unsigned bytes")
    dimensions = stream.read(4 * head[3])
    if len(dimensions) != 4 * head[3]:
        raise _bad(f"{member.name} ends within its header")
    shape = struct.unpack(f">{head[3]}I", dimensions)
    pixels = shape[1] * shape[2] if len(shape) > 1 else 1
    if (
        not 1 <= pixels <= MAX_ARRAY_IMAGE_PIXELS
        or (len(shape) == 4 and shape[3] not in {1, 3})
        or not 0 < shape[0] <= _MAX_LABELS
    ):
        raise _bad(f"{member.name} tells the shape {' × '.join(map(str, shape))}, which cannot be used")
    return IdxFile(member, shape, 4 + 4 * head[3])


def _open(archive: Archive, member: Member, limits: Limits) -> IO[bytes]:
    """The member's bytes, decompressed where it is gzipped."""
    stream = archive.open(member)
    magic = stream.read(2)
    stream.seek(0)  # in what the stream has buffered; to open it again would be to go back
    if magic != GZIP:
        return stream
    return cast(IO[bytes], Bounded(gzip.GzipFile(fileobj=stream), limits.unpacked(member.size)))


def _read_labels(archive: Archive, file: IdxFile, limits: Limits) -> npt.NDArray[np.int64]:
    with _open(archive, file.member, limits) as stream:
        _read_exactly(stream, file.header_bytes, file)
        data = _read_exactly(stream, file.shape[0], file)
        _expect_end(stream, file)
    return np.frombuffer(data, dtype=np.uint8).astype(np.int64)


def _read_lines(archive: Archive, member: Member) -> list[str]:
    with archive.open(member) as stream:
        try:
            text = stream.read(2**20).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise _bad(f"{member.name} is not UTF-8 text") from error
    return text.splitlines()


def _class_names(member: Member, lines: Sequence[str], values: Sequence[int]) -> tuple[str, ...]:
    classes = tuple(line.strip() for line in lines if line.strip())
    if reason := class_names.unclear(classes):
        raise _bad(f"{member.name} cannot be used: {reason}")
    if len(classes) <= max(values):
        raise _bad(f"{member.name} names {len(classes)} classes, but the labels go up to {max(values)}")
    return classes


def _read_exactly(stream: IO[bytes], size: int, file: IdxFile) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise _bad(f"{file.member.name} ends before the {file.shape[0]:,} entries that its header tells")
    return data


def _expect_end(stream: IO[bytes], file: IdxFile) -> None:
    if stream.read(1):
        raise _bad(f"{file.member.name} goes on after the {file.shape[0]:,} entries that its header tells")


def _bad(reason: str) -> JobRefused:
    return JobRefused("bad_idx", reason, _HINT)
