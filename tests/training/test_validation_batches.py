"""How many images a validation computes at once."""

import numpy as np
import pytest

from worker.evaluator.reader import batch_size
from worker.trainer import evaluate
from worker.trainer.pixels import Images


def numbered(count: int, size: int) -> Images:
    """Images of one grey each, its number; views of a single row, so that large ones take no memory."""
    rows = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1)
    return Images(pixels=np.broadcast_to(rows, (count, size, size, 3)), labels=np.zeros(count, np.int64))


@pytest.mark.parametrize(("size", "most"), [(28, 256), (64, 256), (96, 113), (224, 20), (512, 16)])
def test_large_images_are_validated_a_few_at_once_in_order_and_none_is_left_out(size, most):
    batches = []

    def compute(pixels):
        batches.append(len(pixels))
        return pixels[:, 0, 0, :2].astype(np.float32)

    images = numbered(255, size)
    logits = evaluate.logits(compute, images, between=lambda: None)
    assert logits[:, 0].tolist() == list(range(255))
    assert most == batch_size(height=size, width=size)
    assert (max(batches), sum(batches)) == (min(most, 255), 255)
