"""Writes a dataset folder from images that come in any order, with memory that does not grow with their pixels.

Images are spooled to disk as they come and put in order at the end, so that the same files give the same dataset
whatever archive brought them. Pixels are kept as long as all images agree in size and mode; files until then.
"""

import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from store.datasets import (
    DATA,
    MAX_SIZES,
    SPLITS,
    Dataset,
    Report,
    Source,
    SplitName,
)
from store.files import sha256_of

MAX_ARRAY_BYTES = 4 * 2**30  # more pixels than this stay in their files, which are about ten times smaller
MAX_ARRAY_IMAGE_PIXELS = 512 * 512  # larger images stay in their files too


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One usable image. `key` orders it, `split` None leaves the choice to its content.

    `encoded` is its file, None where it never was one; `pixels` uint8 (H, W, C) may be None for large images.
    """

    key: str
    split: SplitName | None
    label: int
    encoded: bytes | None
    pixels: npt.NDArray[np.uint8] | None
    size: tuple[int, int]
    mode: str

    def digest(self) -> bytes:
        """SHA-256 of the file's bytes, or of the pixels where there is no file."""
        if self.encoded is not None:
            return hashlib.sha256(self.encoded).digest()
        return hashlib.sha256(b"" if self.pixels is None else self.pixels.tobytes()).digest()


@dataclass(slots=True)
class _Entry:
    key: str
    split: SplitName | None
    label: int
    digest: bytes
    offset: int
    length: int
    row: int


def split_by_content(labels: Sequence[int], digests: Sequence[bytes]) -> list[SplitName]:
    """A fifth of each class for the test split, chosen by content: the same images give the same split, in any order.

    Within a class the distinct contents are ranked by digest and the first fifth (rounded, at least one where there
    are two) is test. Equal bytes go to one split, also under two labels: the smaller label decides.
    """
    contents: dict[int, set[bytes]] = {}
    owner: dict[bytes, int] = {}
    for label, digest in zip(labels, digests, strict=True):
        owner[digest] = min(label, owner.get(digest, label))
    for digest, label in owner.items():
        contents.setdefault(label, set()).add(digest)
    test: set[bytes] = set()
    for distinct in contents.values():
        if len(distinct) > 1:
            test.update(sorted(distinct)[: max(1, round(len(distinct) / 5))])
    return ["test" if digest in test else "train" for digest in digests]


class DatasetWriter:
    """`add` each sample, look at `counts`, then `finish`; `folder` is new and its parent exists."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / DATA
        self._data.mkdir(parents=True)
        self._entries: list[_Entry] = []
        self._sizes: Counter[str] = Counter()
        self._modes: Counter[str] = Counter()
        self._shape: tuple[int, ...] | None = None
        self._files: BinaryIO = (self._data / ".files.spool").open("w+b")
        self._pixels: BinaryIO | None = (self._data / ".pixels.spool").open("w+b")
        self._has_files = True

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, sample: Sample) -> None:
        self._sizes[f"{sample.size[0]}x{sample.size[1]}"] += 1
        self._modes[sample.mode] += 1
        offset = self._files.tell()
        if sample.encoded is None:
            self._has_files = False
        else:
            self._files.write(sample.encoded)
        self._entries.append(
            _Entry(
                key=sample.key,
                split=sample.split,
                label=sample.label,
                digest=sample.digest(),
                offset=offset,
                length=len(sample.encoded or b""),
                row=len(self._entries),
            )
        )
        self._keep_pixels(sample)

    @property
    def keeps_pixels(self) -> bool:
        """Whether pixels are still of use: all images so far agree in size and channels."""
        return self._pixels is not None

    def _keep_pixels(self, sample: Sample) -> None:
        if self._pixels is None:
            return
        if self._shape is None and sample.pixels is not None:
            self._shape = sample.pixels.shape
        fits = sample.pixels is not None and sample.pixels.shape == self._shape
        if fits and sample.pixels is not None and (self._pixels.tell() <= MAX_ARRAY_BYTES or not self._has_files):
            self._pixels.write(sample.pixels.tobytes())
            return
        if not self._has_files:
            raise ValueError("images without files must agree in size and channels")
        self._pixels.close()
        self._pixels = None
        self._spool_path("pixels").unlink()

    @property
    def has_splits(self) -> bool:
        """Whether any sample came with its split."""
        return any(entry.split for entry in self._entries)

    def assign_splits(self) -> str | None:
        """Settle the split of every sample; the first key of the images that became a test split only here, or None.

        Samples without a split are training images; where no sample is for testing, the content decides who is.
        """
        given = {entry.split for entry in self._entries}
        for entry in self._entries:
            entry.split = entry.split or "train"
        if "test" in given:
            return None
        train = [entry for entry in self._entries if entry.split == "train"]
        chosen = split_by_content([entry.label for entry in train], [entry.digest for entry in train])
        for entry, split in zip(train, chosen, strict=True):
            entry.split = split
        return min((entry.key for entry in train if entry.split == "test"), default=None)

    def counts(self, classes: int) -> dict[SplitName, list[int]]:
        """Images per class of each split that has any."""
        counts: dict[SplitName, list[int]] = {}
        for name in SPLITS:
            labels = [entry.label for entry in self._entries if entry.split == name]
            if labels:
                counts[name] = np.bincount(labels, minlength=classes).tolist()
        return counts

    def finish(
        self,
        *,
        dataset_id: str,
        name: str,
        source: Source,
        classes: Sequence[str],
        report: Report,
        wrote: Callable[[int], None] = lambda _: None,
    ) -> Dataset:
        """Write the arrays and the descriptor. `assign_splits` was called before; `wrote` hears of each image, how many
        have been written.
        """
        self._entries.sort(key=lambda entry: (entry.key, entry.digest))
        self._files.flush()
        if self._pixels is not None:
            self._pixels.flush()
        counts = self.counts(len(classes))
        written = count(1)
        for split in counts:
            self._write_split(split, lambda: wrote(next(written)))
        self.close()
        height, width, channels = self._shape if self.keeps_pixels and self._shape else (None, None, None)
        dataset = Dataset.model_validate(
            {
                "id": dataset_id,
                "name": name,
                "digest": self._digest(classes),
                "created_at": datetime.now(UTC),
                "source": source,
                "classes": tuple(classes),
                "splits": {split: {"images": sum(n), "per_class": n} for split, n in counts.items()},
                "image": {
                    "sizes": dict(self._sizes.most_common(MAX_SIZES)),
                    "modes": dict(self._modes.most_common()),
                    "uniform": self.keeps_pixels,
                    "height": height,
                    "width": width,
                    "channels": channels,
                },
                "report": report,
                "checksums": {
                    path.name: sha256_of(path)
                    for path in sorted(self._data.glob("*.npy"))
                    if not path.name.endswith(".images.npy")
                },
            }
        )
        dataset.write(self._folder)
        return dataset

    def close(self) -> None:
        """Remove the spools."""
        self._files.close()
        self._spool_path("files").unlink(missing_ok=True)
        if self._pixels is not None:
            self._pixels.close()
        self._spool_path("pixels").unlink(missing_ok=True)

    def _spool_path(self, name: str) -> Path:
        return self._data / f".{name}.spool"

    def _digest(self, classes: Sequence[str]) -> str:
        digest = hashlib.sha256()
        for name in classes:
            digest.update(f"{len(name.encode())}:{name}".encode())
        for entry in self._entries:
            digest.update(f"\n{entry.split} {entry.label} ".encode() + entry.digest)
        return f"sha256:{digest.hexdigest()}"

    def _write_split(self, split: SplitName, wrote: Callable[[], None]) -> None:
        entries = [entry for entry in self._entries if entry.split == split]
        np.save(self._data / f"{split}.labels.npy", np.array([entry.label for entry in entries], dtype=np.int64))
        if self._pixels is not None and self._shape is not None:
            row_bytes = int(np.prod(self._shape))
            with (self._data / f"{split}.images.npy").open("wb") as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": (len(entries), *self._shape)}
                np.lib.format.write_array_header_1_0(file, header)
                places = ((entry.row * row_bytes, row_bytes) for entry in entries)
                self._copy(split, file, _pieces(self._pixels, places, wrote))
            return
        lengths = np.array([entry.length for entry in entries], dtype=np.int64)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)[:-1]])
        np.save(self._data / f"{split}.index.npy", np.stack([offsets, lengths], axis=1))
        with (self._data / f"{split}.blob").open("wb") as file:
            places = ((entry.offset, entry.length) for entry in entries)
            self._copy(split, file, _pieces(self._files, places, wrote))

    def _copy(self, split: SplitName, file: BinaryIO, images: Iterable[bytes]) -> None:
        """Write each image, and the CRC-32 of them all to a file of their own."""
        checksums = []
        for image in images:
            file.write(image)
            checksums.append(zlib.crc32(image))
        np.save(self._data / f"{split}.crc32.npy", np.array(checksums, dtype=np.uint32))


def _pieces(spool: BinaryIO, places: Iterable[tuple[int, int]], wrote: Callable[[], None]) -> Iterator[bytes]:
    """Pieces read by position and not by a memory map, whose pages would count as this process's memory."""
    for offset, length in places:
        piece = os.pread(spool.fileno(), length, offset)
        if len(piece) != length:
            raise OSError(f"the spool ends early at byte {offset}")
        yield piece
        wrote()
