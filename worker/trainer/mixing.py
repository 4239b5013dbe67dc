"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019): each image with its neighbour in the batch."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class MixDraws:
    """For each of N rows: `share` float32 of its own image, `cut` bool (CutMix, else mixup), the box's centre 0…1."""

    share: Tensor
    cut: Tensor
    cy: Tensor
    cx: Tensor


def draw(recipe: Recipe, generator: np.random.Generator, *, rows: int, device: torch.device) -> MixDraws:
    """Where a recipe has both, each row takes one of them, with equal chance."""
    cut = generator.random(rows) < (0.5 if recipe.mixup and recipe.cutmix else float(recipe.cutmix > 0))
    shares = [generator.beta(alpha or 1.0, alpha or 1.0, rows) for alpha in (recipe.mixup, recipe.cutmix)]
    share = np.where(cut, shares[1], shares[0]).astype(np.float32)
    cy, cx = (generator.random(rows, dtype=np.float32) for _ in range(2))
    return MixDraws(
        share=torch.from_numpy(share).to(device),
        cut=torch.from_numpy(cut).to(device),
        cy=torch.from_numpy(cy).to(device),
        cx=torch.from_numpy(cx).to(device),
    )


def mix(inputs: Tensor, rows: Tensor, draws: MixDraws) -> Tensor:
    """Inputs (B, C, H, W) mixed with the batch shifted by one: an image's partner is the one before it.

    The partners' labels are the batch's shifted by one, `labels.roll(1)`; `kept` says how much of them is there.
    """
    share = draws.share[rows].to(inputs.dtype)
    inside = _boxes(draws, rows, *inputs.shape[2:])
    cut = draws.cut[rows]
    own = torch.where(cut[:, None, None], (~inside).to(inputs.dtype), share[:, None, None])[:, None]
    return torch.lerp(inputs.roll(1, 0), inputs, own.expand_as(inputs))


def kept(rows: Tensor, draws: MixDraws, *, height: int, width: int) -> Tensor:
    """The share float32 (B,) that each image keeps of itself: of its brightness or, cut, of its pixels."""
    inside = _boxes(draws, rows, height, width)
    return torch.where(draws.cut[rows], 1 - inside.float().mean(dim=(1, 2)), draws.share[rows])


def _boxes(draws: MixDraws, rows: Tensor, height: int, width: int) -> Tensor:
    """The mask (B, H, W) of the pixels that CutMix takes from the partner: 1 − share of them, less what is outside."""
    side = (1 - draws.share[rows]).clamp(min=0).sqrt()[:, None]

    def within(centre: Tensor, size: int) -> Tensor:
        position = torch.arange(size, device=rows.device) + 0.5
        return (position - centre[rows, None] * size).abs() < side * size / 2

    return within(draws.cy, height)[:, :, None] & within(draws.cx, width)[:, None, :]
