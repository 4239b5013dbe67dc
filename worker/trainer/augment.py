"""Augmentation in batch, on the device, a pure function of (seed, epoch, sample): a resumed run repeats it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.recipes import Recipe

_ORDER, _DRAWS = 1, 2  # streams of randomness


def _generator(seed: int, epoch: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, stream])))


def order(*, samples: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order in which an epoch visits the samples."""
    return _generator(seed, epoch, _ORDER).permutation(samples)


@dataclass(frozen=True, kw_only=True)
class Draws:
    """One row of random choices for each sample of an epoch.

    `dy`, `dx` int64 (N,) shifts in pixels; `flip` bool (N,); `cy`, `cx` int64 (N,) the centre of the cut-out square.
    """

    dy: Tensor
    dx: Tensor
    flip: Tensor
    cy: Tensor
    cx: Tensor


def draw(recipe: Recipe, *, samples: int, epoch: int, device: torch.device) -> Draws:
    generator = _generator(recipe.seed, epoch, _DRAWS)
    shift, size = recipe.crop_padding, recipe.image_size
    table = [generator.integers(-shift, shift + 1, samples) for _ in range(2)]
    flip = generator.random(samples) < 0.5
    table += [generator.integers(0, size, samples) for _ in range(2)]
    dy, dx, cy, cx = (torch.from_numpy(column).to(device) for column in table)
    return Draws(dy=dy, dx=dx, flip=torch.from_numpy(flip).to(device), cy=cy, cx=cx)


def crop_and_flip(pixels: Tensor, samples: Tensor, draws: Draws, *, flip: bool) -> Tensor:
    """The `samples` (B,) of pixels (N, H, W, C), each shifted by its draw (edges reflected) and mirrored where drawn.

    One gather does both: an output pixel is looked up by its row and column in the source.
    """
    height, width = pixels.shape[1:3]
    rows = _reflect(torch.arange(height, device=samples.device) + draws.dy[samples, None], height)
    columns = _reflect(torch.arange(width, device=samples.device) + draws.dx[samples, None], width)
    if flip:
        columns = torch.where(draws.flip[samples, None], columns.flip(1), columns)
    where = pixels.device  # a dataset too large for the device stays in the machine's memory
    index = samples[:, None, None].to(where), rows[:, :, None].to(where), columns[:, None, :].to(where)
    return pixels[index]


def _reflect(position: Tensor, size: int) -> Tensor:
    """Positions outside 0…size-1 mirrored at the edge pixels, which are not repeated."""
    position = position.abs()
    return (size - 1) - (size - 1 - position).abs()


def batch(pixels: Tensor, samples: Tensor, draws: Draws, recipe: Recipe) -> Tensor:
    """The images of a batch, uint8 (B, H, W, C), cropped and flipped as the recipe says; on the pixels' device."""
    if not recipe.crop_padding and not recipe.horizontal_flip:
        return pixels[samples.to(pixels.device)]
    return crop_and_flip(pixels, samples, draws, flip=recipe.horizontal_flip)


def cut_out(inputs: Tensor, samples: Tensor, draws: Draws, *, side: int) -> Tensor:
    """Inputs (B, C, H, W) with a square of `side` pixels set to 0, the mean, at each drawn centre (DeVries 2017)."""
    height, width = inputs.shape[2:]
    y = torch.arange(height, device=inputs.device) - draws.cy[samples, None]
    x = torch.arange(width, device=inputs.device) - draws.cx[samples, None]
    low, high = -(side // 2), side - side // 2
    inside = ((y >= low) & (y < high))[:, :, None] & ((x >= low) & (x < high))[:, None, :]
    return inputs.masked_fill(inside[:, None], 0.0)
