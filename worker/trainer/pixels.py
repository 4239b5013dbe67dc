"""A split's images as prepared pixels: whole in memory, or made from the files as they are asked for; the same bits."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.images import Decoded, ImageRejected, decode, prepare
from models.manifest import Preprocessing
from store.splits import Split
from worker.job_process import JobRefused

_MAX_PIXELS = 200_000_000  # what the importer let in is decoded; this only bounds a broken header
_CHUNK = 64  # images that one thread prepares at a time: enough to be worth its start, few enough to share out a batch

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Images:
    """`pixels` uint8 (N, H, W, C), in memory or streamed, `labels` int64 (N,)."""

    pixels: "npt.NDArray[np.uint8] | Streamed"
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


class Streamed:
    """Pixels uint8 (N, H, W, C) that are not held: `streamed[rows or slice]` makes them, an array as NumPy would give.

    `rows` are the N images of the split that it consists of. `workers` threads share the work of one call; with 0 the
    caller does it. Raises JobRefused where an image cannot be decoded. Any thread may ask.
    """

    def __init__(self, split: Split, rows: Rows, preprocessing: Preprocessing, *, workers: int) -> None:
        self._split, self._rows, self._preprocessing = split, rows, preprocessing
        self._pool: Executor | None = ThreadPoolExecutor(workers, "prepare") if workers else None
        self.shape = (len(rows), preprocessing.height, preprocessing.width, preprocessing.channels)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, chosen: int | slice | Rows) -> npt.NDArray[np.uint8]:
        if isinstance(chosen, int | np.integer):
            one: npt.NDArray[np.uint8] = self[np.array([chosen])][0]
            return one
        rows = self._rows[chosen]
        pixels = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        fill(pixels, self._split, rows, self._preprocessing, pool=self._pool, between=_nothing)
        return pixels


def fill(
    pixels: npt.NDArray[np.uint8],
    split: Split,
    rows: Rows,
    preprocessing: Preprocessing,
    *,
    pool: Executor | None,
    between: Callable[[], None],
) -> None:
    """Put the images `rows` of a split into `pixels` (len(rows), H, W, C), in parts that the pool's threads share.

    `between` is called after each part; what it raises ends the work.
    """
    if split.pixels is not None and split.pixels.shape[1:] == pixels.shape[1:]:
        for start in range(0, len(rows), _CHUNK):
            pixels[start : start + _CHUNK] = split.pixels[rows[start : start + _CHUNK]]
            between()
        return

    def part(start: int) -> None:
        some = slice(start, start + _CHUNK)
        pixels[some] = prepared(split, rows[some].tolist(), preprocessing)

    starts = range(0, len(rows), _CHUNK)
    if pool is None:
        for start in starts:
            part(start)
            between()
        return
    parts = [pool.submit(part, start) for start in starts]  # Pillow decodes and resizes without the GIL
    try:
        for each in parts:
            each.result()
            between()
    finally:
        for each in parts:
            each.cancel()


def prepared(split: Split, chosen: Sequence[int], preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Some images of a split as `models/images` prepares them for serving, uint8 (len(chosen), H, W, C); any thread.

    Raises JobRefused where one cannot be decoded.
    """
    pixels = np.empty((len(chosen), preprocessing.height, preprocessing.width, preprocessing.channels), dtype=np.uint8)
    for place, index in enumerate(chosen):
        pixels[place], _ = prepare(_decoded(split, index), preprocessing)
    return pixels


def _decoded(split: Split, index: int) -> Decoded:
    if split.pixels is not None:
        array = split.pixels[index]
        return Decoded(Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array))
    try:
        return decode(split.encoded(index), max_pixels=_MAX_PIXELS)
    except ImageRejected as error:
        raise JobRefused(
            "dataset_damaged",
            f"image {index} of split {split.name} cannot be decoded: {error.message}",
            "Import the dataset again.",
        ) from error


def _nothing() -> None:
    pass
