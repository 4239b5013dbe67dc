"""Datasets on disk: what an import leaves. `store/splits.py` reads the images.

`dataset.json` describes the dataset and is written last: where it lies, the dataset is whole. `data/` holds for each
split `<split>.labels.npy` int64 (N,) and either `<split>.images.npy` uint8 (N, H, W, C), where all images share size
and mode, or the files as they came, end to end, in `<split>.blob` with `<split>.index.npy` int64 (N, 2): offset and
length. `<split>.crc32.npy` uint32 (N,) has the CRC-32 of each image's bytes, by which one that has changed on the disk
since is told when it is read; the descriptor has the SHA-256 of all files but images.npy and blob.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from store.faults import point
from store.files import fsync_dir, fsync_tree, write_atomic

DESCRIPTOR = "dataset.json"
DATA = "data"
UPLOAD = "upload"
MAX_LISTED = 1000  # entries of one list of a report
MAX_SIZES = 20  # image sizes told in a descriptor

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Frozen):
    format: Literal["image_folder", "idx", "manifest"]


class SplitSummary(_Frozen):
    """`per_class[i]` counts the images of class index i."""

    images: int
    per_class: tuple[int, ...]


class ImageSummary(_Frozen):
    """`sizes` ("WIDTHxHEIGHT") holds the 20 most frequent; `modes` are Pillow's names for the files' own pixel formats.

    `uniform` says that the pixels are stored as arrays; only then are height, width and channels set.
    """

    sizes: dict[str, int]
    modes: dict[str, int]
    uniform: bool
    height: int | None = None
    width: int | None = None
    channels: Literal[1, 3] | None = None


class FileNote(_Frozen):
    file: str
    reason: str


class WarningNote(_Frozen):
    """One kind of conversion: how many images it touched and the first of them."""

    code: str
    message: str
    images: int
    example: str


class Truncated(_Frozen):
    """How many entries the lists leave out."""

    corrupt: int = 0
    skipped: int = 0


class Report(_Frozen):
    """`images` counts the usable images. Each list holds the first 1,000 by name; `truncated` counts the others."""

    images: int
    corrupt: tuple[FileNote, ...] = ()
    skipped: tuple[FileNote, ...] = ()
    warnings: tuple[WarningNote, ...] = ()
    truncated: Truncated = Truncated()


class Dataset(_Frozen):
    """dataset.json. `digest` tells classes, splits and the images' bytes in order, not the archive around them.

    `checksums` are the SHA-256 of the files of data/ that are no images, by name: empty where the dataset was imported
    before there were any, and then its files are taken as they are.
    """

    id: str = Field(pattern=r"^ds_[A-Za-z0-9_-]+$")
    name: str
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    created_at: datetime
    source: Source
    classes: tuple[str, ...]
    splits: dict[SplitName, SplitSummary]
    image: ImageSummary
    report: Report
    checksums: dict[str, str] = {}

    @classmethod
    def read(cls, folder: Path) -> "Dataset":
        """Raises FileNotFoundError where no import has ended."""
        return cls.model_validate_json((folder / DESCRIPTOR).read_bytes())

    def write(self, folder: Path) -> None:
        write_atomic(folder / DESCRIPTOR, self.model_dump_json(indent=2).encode())


def publish(artifact: Path, target: Path) -> None:
    """Move an import's result into the dataset's folder: data/ first, dataset.json last, then the upload goes.

    Durable on return. May be killed at any point and called again, also after it was done. Who has lost the job and
    does not know it yet may publish at the same time: the first descriptor stands, with its own data.
    """
    target.mkdir(parents=True, exist_ok=True)
    if (artifact / DESCRIPTOR).exists() and not (target / DESCRIPTOR).exists():
        if (artifact / DATA).exists():
            fsync_tree(artifact)
        with _locked(target):
            if not (target / DESCRIPTOR).exists():
                _move(artifact, target)
    if not (target / DESCRIPTOR).exists():
        raise FileNotFoundError(artifact / DESCRIPTOR)
    (target / UPLOAD).unlink(missing_ok=True)
    fsync_dir(target)


def _move(artifact: Path, target: Path) -> None:
    if (artifact / DATA).exists():
        if (target / DATA).exists():  # of an earlier claim that never wrote its descriptor
            shutil.rmtree(target / DATA)
        (artifact / DATA).rename(target / DATA)
        fsync_dir(target)
        point("dataset.renamed")
    (artifact / DESCRIPTOR).rename(target / DESCRIPTOR)
    fsync_dir(target)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One at a time, by a lock on the folder itself."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
