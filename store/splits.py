"""A dataset's images, read split by split; the format is described in `store/datasets.py`."""

import hashlib
import mmap
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from store.datasets import DATA, Dataset, SplitName

_HASHED_BYTES = 4096  # of a compressed file's end
_UNCOMPRESSED = (b"BM", b"II", b"MM")  # how BMP and TIFF begin, of the formats that `models/images.py` opens


class Split:
    """One split, read from disk as it is needed. `pixels` is uint8 (N, H, W, C), memory-mapped, or None.

    Where `pixels` is None, `encoded(i)` is image i as a file's bytes.
    """

    def __init__(self, data: Path, name: SplitName) -> None:
        self.name = name
        self.labels: npt.NDArray[np.int64] = np.load(data / f"{name}.labels.npy")
        self.pixels: npt.NDArray[np.uint8] | None = None
        images = data / f"{name}.images.npy"
        if images.exists():
            self.pixels = np.load(images, mmap_mode="r")
        else:
            self._blob = data / f"{name}.blob"
            self._index: npt.NDArray[np.int64] = np.load(data / f"{name}.index.npy")

    def __len__(self) -> int:
        return len(self.labels)

    def fault(self) -> str | None:
        """What does not fit together in the split's files, in words, or None. Looks at no pixel."""
        if self.pixels is not None:
            if self.pixels.ndim != 4 or self.pixels.dtype != np.uint8 or self.pixels.shape[3] not in (1, 3):
                return f"its images are {self.pixels.dtype} {self.pixels.shape}"
            count = len(self.pixels)
        else:
            offsets, lengths = self._index.T
            if (offsets < 0).any() or (lengths <= 0).any() or (offsets + lengths > self._blob.stat().st_size).any():
                return "its files end before its last image does"
            count = len(self._index)
        if self.labels.shape != (count,) or self.labels.dtype != np.int64 or (self.labels < 0).any():
            return f"it has {count} images and labels {self.labels.dtype} {self.labels.shape}"
        return None

    @cached_property
    def _mapped(self) -> mmap.mmap:
        with self._blob.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def encoded(self, index: int) -> bytes:
        """Image `index` as the bytes of its file. Raises ValueError where the split holds pixels."""
        if self.pixels is not None:
            raise ValueError(f"split {self.name} holds pixels, not files")
        offset, length = self._index[index]
        return self._mapped[offset : offset + length]

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


def open_split(folder: Path, dataset: Dataset, split: SplitName) -> Split:
    """The named split of the dataset in `folder`. Raises KeyError where the dataset has no such split."""
    if split not in dataset.splits:
        raise KeyError(split)
    return Split(folder / DATA, split)
