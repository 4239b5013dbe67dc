"""Planned files → decoded samples: read in the archive's own order, decoded on a few threads, bounded in memory."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from models.images import ImageRejected, ImageWarning, decode, pixels
from store.control_group import usable_cores
from store.dataset_writer import MAX_ARRAY_IMAGE_PIXELS, Sample
from store.datasets import FileNote
from worker.importer.archive import Archive, ZipArchive
from worker.importer.limits import Limits, broken
from worker.importer.plan import IMAGE_SUFFIXES, Planned, suffix
from worker.importer.streams import STREAM_ERRORS, machine_failed

_BATCH_IMAGES = 32
_BATCH_BYTES = 4 * 2**20
_THREADS = 4  # Pillow decodes without the interpreter's lock, but small images hardly gain from more


@dataclass(frozen=True)
class File:
    """A planned image and its bytes; None with the reason where they could not be had."""

    planned: Planned
    data: bytes | None
    reason: str = ""


@dataclass(frozen=True)
class Outcome:
    """A sample and what was converted, or a note on why there is none."""

    name: str
    sample: Sample | None
    warnings: tuple[ImageWarning, ...] = ()
    corrupt: FileNote | None = None
    skipped: FileNote | None = None


def decode_all(
    archive: Archive, images: Sequence[Planned], labels: dict[str, int], limits: Limits
) -> Iterator[list[Outcome]]:
    """Batches of outcomes, each image once. A damaged image is an outcome; a damaged archive raises JobRefused."""
    workers = min(_THREADS, usable_cores())
    waiting: deque[Future[list[Outcome]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for batch in _batches(archive, images, limits):
                waiting.append(pool.submit(_decode_batch, batch, labels, limits))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _batches(archive: Archive, images: Sequence[Planned], limits: Limits) -> Iterator[list[File]]:
    batch: list[File] = []
    held = 0
    for planned in sorted(images, key=lambda image: image.member.offset):
        file = _read(archive, planned, limits)
        batch.append(file)
        held += len(file.data or b"")
        if len(batch) == _BATCH_IMAGES or held >= _BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _read(archive: Archive, planned: Planned, limits: Limits) -> File:
    member = planned.member
    if member.size > limits.image_bytes:
        return File(planned, None, f"{member.size:,} bytes; {limits.image_bytes:,} are allowed for one image")
    with archive.open(member) as stream:
        try:
            return File(planned, stream.read(member.size + 1))
        except STREAM_ERRORS as error:
            # In a zip each member stands alone; in a tar a damaged stream has no more members to give.
            if machine_failed(error):
                raise
            if not isinstance(archive, ZipArchive):
                raise broken(str(error) or type(error).__name__) from error
            return File(planned, None, "damaged inside the archive (checksum)")


def _decode_batch(batch: Sequence[File], labels: dict[str, int], limits: Limits) -> list[Outcome]:
    return [_decode_one(file, labels[file.planned.label], limits) for file in batch]


def _decode_one(file: File, label: int, limits: Limits) -> Outcome:
    planned, name = file.planned, file.planned.member.name
    if file.data is None:
        return Outcome(name, None, corrupt=FileNote(file=name, reason=file.reason))
    try:
        decoded = decode(file.data, max_pixels=limits.image_pixels)
    except ImageRejected as error:
        note = FileNote(file=name, reason=error.message)
        if error.code == "unsupported_format" and suffix(name) not in IMAGE_SUFFIXES:
            return Outcome(name, None, skipped=note)
        return Outcome(name, None, corrupt=note)
    image = decoded.image
    small = image.width * image.height <= MAX_ARRAY_IMAGE_PIXELS
    sample = Sample(
        key=planned.key,
        split=planned.split,
        label=label,
        encoded=file.data,
        pixels=pixels(image) if small else None,
        size=image.size,
        mode=decoded.mode or image.mode,
    )
    return Outcome(name, sample, decoded.warnings)
