"""Evaluation: logits of a whole split, batch by batch, with signs of life."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from worker.trainer.data import Images
from worker.trainer.metrics import Logits

_BATCH = 256


def logits(
    compute: Callable[[npt.NDArray[np.uint8]], Logits], images: Images, *, between: Callable[[], None]
) -> Logits:
    """Logits float32 (N, K) of every image, in order. `between` is called after each batch."""
    parts = []
    for start in range(0, len(images), _BATCH):
        parts.append(compute(images.pixels[start : start + _BATCH]))
        between()
    return np.concatenate(parts)
