"""A training's device and its arithmetic. Evaluation stays float32: what was measured is what is served."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from models.recipes import Recipe
from models.runtime import resolve_device
from store.control_group import usable_cores
from worker.job_process import JobRefused


def prepared_device(name: str, recipe: Recipe) -> torch.device:
    """The device, with threads and algorithms for the recipe. Raises JobRefused where it is not here."""
    try:
        device = resolve_device(name)
    except ValueError as error:
        raise JobRefused("no_device", str(error), "Use auto or cpu.") from error
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(usable_cores())
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS refuses to be deterministic without
        torch.use_deterministic_algorithms(mode=True)
    torch.backends.cudnn.allow_tf32 = False  # of validation, before and after any model was loaded; steps choose anew
    return device


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
