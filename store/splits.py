"""A dataset's images, read split by split; the format is described in `store/datasets.py`."""

import hashlib
import mmap
import zlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from store.datasets import DATA, Dataset, SplitName
from store.files import sha256_of

_PIECE = 1024
_HASHED_BYTES = 4096  # of a compressed file's end
_UNCOMPRESSED = (b"BM", b"II", b"MM")  # how BMP and TIFF begin, of the formats that `models/images.py` opens


class Split:
    """One split, read from disk as it is needed. `pixels` is uint8 (N, H, W, C), memory-mapped, or None.

    Where `pixels` is None, `encoded(i)` is image i as a file's bytes. `refuse` makes what is raised of one that is no
    longer what was imported.
    """

    def __init__(self, data: Path, name: SplitName, *, refuse: Callable[[str], Exception] = ValueError) -> None:
        self.name, self._refuse = name, refuse
        self.labels: npt.NDArray[np.int64] = np.load(data / f"{name}.labels.npy")
        self.pixels: npt.NDArray[np.uint8] | None = None
        images = data / f"{name}.images.npy"
        if images.exists():
            self.pixels = np.load(images, mmap_mode="r")
        else:
            self._blob = data / f"{name}.blob"
            self._index: npt.NDArray[np.int64] = np.load(data / f"{name}.index.npy")
        crc32 = data / f"{name}.crc32.npy"
        self._crc32: npt.NDArray[np.uint32] | None = np.load(crc32) if crc32.exists() else None

    def __len__(self) -> int:
        return len(self.labels)

    def fault(self) -> str | None:
        """What does not fit together in the split's files, in words, or None. Looks at no pixel."""
        if self.pixels is not None:
            right = self.pixels.ndim == 4 and self.pixels.dtype == np.uint8 and self.pixels.flags.c_contiguous
            if not right or self.pixels.shape[3] not in (1, 3):
                return f"its images are {self.pixels.dtype} {self.pixels.shape}"
            count = len(self.pixels)
        else:
            offsets, lengths = self._index.T
            if (offsets < 0).any() or (lengths <= 0).any() or (offsets + lengths > self._blob.stat().st_size).any():
                return "its files end before its last image does"
            count = len(self._index)
        if self.labels.shape != (count,) or self.labels.dtype != np.int64 or (self.labels < 0).any():
            return f"it has {count} images and labels {self.labels.dtype} {self.labels.shape}"
        if self._crc32 is not None and self._crc32.shape != (count,):
            return f"it has {count} images and checksums {self._crc32.shape}"
        return None

    def check_pixels(self, between: Callable[[], None]) -> None:
        """Read every image and raise where one has changed; nothing where the split holds files, each of which is
        checked when it is read. `between` is called every thousand images.

        On one core that shares with others, 60,000 images of 28×28 take 0.14 s; of 224×224×3 it is 1.3 GiB a second.
        """
        if self.pixels is None or self._crc32 is None:
            return
        pixels = np.ascontiguousarray(self.pixels)  # itself, as a plain array: rows of a memmap take longer to cut
        for index, image in enumerate(pixels):
            if index % _PIECE == 0:
                between()
            self._check(index, image.data)

    def _check(self, index: int, content: bytes | memoryview) -> None:
        if self._crc32 is not None and zlib.crc32(content) != self._crc32[index]:
            raise self._refuse(f"image {index} is not what was imported")

    @cached_property
    def _mapped(self) -> mmap.mmap:
        with self._blob.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def encoded(self, index: int) -> bytes:
        """Image `index` as the bytes of its file. Raises ValueError where the split holds pixels, and `refuse`'s
        exception where the bytes have changed.
        """
        if self.pixels is not None:
            raise ValueError(f"split {self.name} holds pixels, not files")
        offset, length = self._index[index]
        content = self._mapped[offset : offset + length]
        self._check(index, content)
        return content

    def content_hash(self, index: int) -> int:
        """64 bits of a hash of image `index`'s pixels; where the split holds files, of its file's length and last
        4 KB, so that photographs need not be read whole, or of the whole file where it may be uncompressed: there the
        end is a few rows of pixels, and many images have the same. Any thread.
        """
        if self.pixels is not None:
            digest = hashlib.blake2b(self.pixels[index].tobytes(), digest_size=8)
        else:
            offset, length = map(int, self._index[index])
            digest = hashlib.blake2b(length.to_bytes(8, "little"), digest_size=8)
            whole = self._mapped[offset : offset + 2] in _UNCOMPRESSED
            skipped = 0 if whole else max(length - _HASHED_BYTES, 0)
            digest.update(self._mapped[offset + skipped : offset + length])
        return int.from_bytes(digest.digest(), "little")


def open_split(
    folder: Path, dataset: Dataset, split: SplitName, *, refuse: Callable[[str], Exception] = ValueError
) -> Split:
    """The named split of the dataset in `folder`. Raises KeyError where the dataset has no such split, and `refuse`'s
    exception where its labels or another file beside its images are not what was imported.
    """
    if split not in dataset.splits:
        raise KeyError(split)
    for name, sha256 in dataset.checksums.items():
        if name.startswith(f"{split}.") and sha256_of(folder / DATA / name) != sha256:
            raise refuse(f"{name} is not what was imported")
    return Split(folder / DATA, split, refuse=refuse)
