"""The arithmetic of a training step. Evaluation stays float32: what was measured is what is served."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from models.recipes import Recipe


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """For the forward pass: bf16 where the recipe says so; the backward pass takes the forward's types."""
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")


@contextmanager
def float32_products(recipe: Recipe) -> Iterator[None]:
    """For a whole step: whether CUDA may compute float32 convolutions and matrix products in TF32.

    Left alone, PyTorch would take TF32 for convolutions and float32 for the rest. Other devices know no TF32.
    """
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = recipe.precision == "tf32"
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before
