"""The training images, batch by batch, on the device: from tensors that lie there, or streamed to it ahead of need."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worker.trainer.pixels import Rows, Streamed

_AHEAD = 3  # batches prepared before their turn: the next one is there when two take longer than the others


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images as `pixels[index]`: uint8 (N, H, W, C) and int64 (B,), on one device."""

    pixels: Tensor
    index: Tensor


class Feed(Protocol):
    """Gives the batches of an epoch. Both kinds give the same images in the same order, whatever the threads do."""

    def batches(self, visits: Rows) -> Generator[Batch, None, None]:
        """A batch for each of the `visits`, int64 (S, B) rows to take; to be closed when no more are wanted."""


class Resident:
    """All pixels lie on the device; a batch is a few numbers."""

    def __init__(self, pixels: npt.NDArray[np.uint8], device: torch.device) -> None:
        self._pixels = torch.from_numpy(pixels).to(device)

    def batches(self, visits: Rows) -> Generator[Batch, None, None]:
        for index in torch.from_numpy(visits).to(self._pixels.device):  # at once: a copy a step would wait for the step
            yield Batch(pixels=self._pixels, index=index)


class Stream:
    """Pixels come from the machine's memory or from files, a few batches ahead, in threads; `ahead` 0 = when asked for.

    Memory holds `ahead` + 1 batches, however large the dataset is.
    """

    def __init__(self, pixels: npt.NDArray[np.uint8] | Streamed, device: torch.device, *, ahead: int) -> None:
        self._pixels, self._device, self._ahead = pixels, device, ahead
        self._pool: Executor | None = ThreadPoolExecutor(ahead, "feed") if ahead else None

    def batches(self, visits: Rows) -> Generator[Batch, None, None]:
        started: deque[Future[Tensor]] = deque()
        try:
            for rows in visits:
                if self._pool is None:
                    yield self._placed(self._read(rows))
                    continue
                started.append(self._pool.submit(self._read, rows))
                if len(started) > self._ahead:
                    yield self._placed(started.popleft().result())
            while started:
                yield self._placed(started.popleft().result())
        finally:
            for future in started:
                future.cancel()

    def _read(self, rows: Rows) -> Tensor:
        images = torch.from_numpy(self._pixels[rows])
        return images.pin_memory() if self._device.type == "cuda" else images

    def _placed(self, images: Tensor) -> Batch:
        pixels = images.to(self._device, non_blocking=True)
        return Batch(pixels=pixels, index=torch.arange(len(pixels), device=self._device))


def feed(pixels: npt.NDArray[np.uint8] | Streamed, device: torch.device, *, workers: int | None) -> Feed:
    """Pixels in memory lie on the device where they take at most half of its free memory; all others are streamed."""
    if isinstance(pixels, Streamed):
        return Stream(pixels, device, ahead=0 if workers == 0 else _AHEAD)
    if device.type == "cuda" and pixels.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
        return Stream(pixels, device, ahead=_AHEAD)
    return Resident(pixels, device)
