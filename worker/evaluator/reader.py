"""Images of a split in batches, prepared a little ahead of the network."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from models.manifest import Preprocessing
from store.control_group import usable_cores
from store.splits import Split
from worker.trainer.pixels import Rows, prepared

Pixels = npt.NDArray[np.uint8]

_BATCH_PIXELS = 2**20


def batch_size(*, height: int, width: int) -> int:
    """Images of a batch, 16 to 256, by their size alone: of every evaluation, a training's validation too.

    Wherever an evaluation resumes, its batches are the same, and so are the bits of its logits.
    """
    return min(256, max(16, _BATCH_PIXELS // (height * width)))


def batches(split: Split, rows: Rows, preprocessing: Preprocessing, *, first: int) -> Iterator[Pixels]:
    """Prepared images uint8 (N, H, W, C), those of `rows` from the one at `first` on, which begins a batch.

    Raises JobRefused.
    """
    size = batch_size(height=preprocessing.height, width=preprocessing.width)
    starts = iter(range(first, len(rows), size))
    threads = usable_cores()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prepare")  # Pillow decodes and resizes without the GIL
    ahead: deque[Future[Pixels]] = deque()

    def submit() -> None:
        start = next(starts, None)
        if start is not None:
            ahead.append(pool.submit(prepared, split, rows[start : start + size].tolist(), preprocessing))

    try:
        for _ in range(threads + 1):
            submit()
        while ahead:
            pixels = ahead.popleft().result()
            submit()
            yield pixels
    finally:
        pool.shutdown(cancel_futures=True)
