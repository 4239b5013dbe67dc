"""Which images the device computes next.

An idle device never waits: it takes what is there. While it works, images gather, and the next batch is what gathered,
up to `max_batch` images: so batches grow with the load, and no clock is needed. Images are counted, not requests.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

log = logging.getLogger(__name__)

MAX_BATCH = 32


class ComputeFailed(RuntimeError):
    """The device raised an error over the batch that this image was in."""


@dataclass(frozen=True)
class Computed:
    """One image's probabilities, float64 (K,), and what it took in ms."""

    probabilities: npt.NDArray[np.float64]
    queue_ms: float
    compute_ms: float


@dataclass(frozen=True, eq=False)
class Waiting:
    """A prepared image, uint8 (H, W, C), for which somebody waits; times are the event loop's."""

    pixels: npt.NDArray[np.uint8]
    since: float
    deadline: float
    answer: "asyncio.Future[Computed]"


def take(queue: deque[Waiting], *, max_batch: int, now: float) -> list[Waiting]:
    """Remove the next batch from the queue: the oldest images, but none whose client is gone or whose time is over."""
    batch: list[Waiting] = []
    while queue and len(batch) < max_batch:
        image = queue.popleft()
        if not image.answer.done() and image.deadline > now:
            batch.append(image)
    return batch


class Batcher:
    """Feeds a device one batch at a time, in one thread."""

    def __init__(
        self,
        compute: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float64]],
        *,
        max_batch: int = MAX_BATCH,
    ) -> None:
        """`compute` makes probabilities (N, K) of images (N, H, W, C), N ≤ `max_batch`; it runs in its own thread."""
        self._compute = compute
        self._max_batch = max_batch
        self._queue: deque[Waiting] = deque()
        self._arrived = asyncio.Event()
        self._device = ThreadPoolExecutor(1, thread_name_prefix="device")

    async def submit(self, pixels: npt.NDArray[np.uint8], *, deadline: float, first: bool = False) -> Computed:
        """Compute one image; `first` puts it before all others. Raises ComputeFailed.

        An image whose deadline passes while it waits is never computed and never answered: the caller keeps the time.
        """
        loop = asyncio.get_running_loop()
        image = Waiting(pixels=pixels, since=loop.time(), deadline=deadline, answer=loop.create_future())
        if first:
            self._queue.appendleft(image)
        else:
            self._queue.append(image)
        self._arrived.set()
        return await image.answer

    async def run(self) -> None:
        """Compute batches until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            batch = take(self._queue, max_batch=self._max_batch, now=loop.time())
            if not self._queue:
                self._arrived.clear()
            if batch:
                await self._run(batch)

    async def _run(self, batch: list[Waiting]) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            pixels = np.stack([image.pixels for image in batch])
            rows = await loop.run_in_executor(self._device, self._compute, pixels)
        except Exception as error:
            log.exception("the device failed", extra={"images": len(batch)})
            for image in batch:
                if not image.answer.done():
                    image.answer.set_exception(ComputeFailed(f"the device failed: {type(error).__name__}"))
            return
        compute_ms = (loop.time() - started) * 1000
        for image, row in zip(batch, rows, strict=True):
            if not image.answer.done():
                queue_ms = (started - image.since) * 1000
                image.answer.set_result(Computed(probabilities=row, queue_ms=queue_ms, compute_ms=compute_ms))
