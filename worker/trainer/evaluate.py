"""Evaluation: logits of a whole split, batch by batch, with signs of life."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from worker.evaluator.reader import batch_size
from worker.trainer.distributed import World
from worker.trainer.metrics import Logits
from worker.trainer.pixels import Images


def logits(
    compute: Callable[[npt.NDArray[np.uint8]], Logits],
    images: Images,
    *,
    between: Callable[[], None],
    world: World = World(),  # noqa: B008 - it is frozen
) -> Logits:
    """Logits float32 (N, K) of every image, in order; the ranks of a world share the batches, and each has all logits.

    `between` is called after each batch, by all ranks equally often.
    """
    _, height, width, _ = images.pixels.shape
    size = batch_size(height=height, width=width)
    parts: list[tuple[int, Logits]] = []
    for start in range(0, len(images), size * world.size):
        own = start + size * world.rank
        if own < len(images):
            parts.append((own, compute(images.pixels[own : own + size])))
        between()
    classes = world.agreed(parts[0][1].shape[1] if parts else 0)  # the first batch is rank 0's
    whole = np.zeros((len(images), classes), dtype=np.float32)
    for own, part in parts:
        whole[own : own + len(part)] = part
    world.add(torch.from_numpy(whole))  # of several, only one is not zero: the sum is exact
    return whole
