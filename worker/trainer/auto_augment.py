"""TrivialAugment (Müller and Hutter 2021) and RandAugment (Cubuk et al. 2020) on a batch, each image by its own draw.

Operations and magnitudes are those of torchvision's `TrivialAugmentWide`, and of its `RandAugment` with two operations
of magnitude 9. Here they run on the device, on uint8 (B, H, W, C), and a draw is a function of seed, epoch and visit.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worker.trainer import auto_operations as operations
from worker.trainer.auto_operations import OPERATIONS, Operation

BINS = 31  # magnitudes of each operation, from none to the most
_RAND_BIN = 9
_RAND_OPERATIONS = 2


@dataclass(frozen=True, kw_only=True)
class Most:
    """A policy's largest magnitudes, in each operation's own unit.

    `shear` is a slope, `shift` pixels, `angle` degrees; `gain` is what brightness, colour, contrast and sharpness win
    or lose, 1 being all of it; `lost_bits` are those that posterize takes of eight.
    """

    shear: float
    shift: float
    angle: float
    gain: float
    lost_bits: int


def most(policy: str, *, size: int) -> Most:
    """Of "trivial" or "rand", for square images of `size` pixels; TrivialAugment shifts all sizes by as many pixels."""
    if policy == "trivial":
        return Most(shear=0.99, shift=32.0, angle=135.0, gain=0.99, lost_bits=6)
    return Most(shear=0.3, shift=150 / 331 * size, angle=30.0, gain=0.9, lost_bits=4)


def magnitudes(policy: str, *, size: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """float64 (operations, BINS) in the order of `OPERATIONS`, 0 where there are none, and which go both ways.

    Of posterize they are the bits that stay, of solarize the value from which pixels are inverted.
    """
    limits, share = most(policy, size=size), np.arange(BINS) / (BINS - 1)
    signed: dict[Operation, npt.NDArray[np.float64]] = {
        operations.shear_x: limits.shear * share,
        operations.shear_y: limits.shear * share,
        operations.translate_x: limits.shift * share,
        operations.translate_y: limits.shift * share,
        operations.rotate: limits.angle * share,
        operations.brightness: limits.gain * share,
        operations.colour: limits.gain * share,
        operations.contrast: limits.gain * share,
        operations.sharpness: limits.gain * share,
    }
    unsigned: dict[Operation, npt.NDArray[np.float64]] = {
        operations.posterize: 8 - (limits.lost_bits * share).round(),
        operations.solarize: 255 * (1 - share),
    }
    table = {**signed, **unsigned}
    return (
        np.stack([table.get(each, np.zeros(BINS)) for each in OPERATIONS]),
        np.array([each in signed for each in OPERATIONS]),
    )


@dataclass(frozen=True, kw_only=True)
class AutoDraws:
    """For each of N visits and each of R rounds: `operation` int64 (N, R) and its `magnitude` float32 (N, R)."""

    operation: Tensor
    magnitude: Tensor


def draw(policy: str, generator: np.random.Generator, *, size: int, visits: int, device: torch.device) -> AutoDraws:
    """`policy` "trivial": one operation of any magnitude; "rand": two of RandAugment's usual one."""
    shape = (visits, 1 if policy == "trivial" else _RAND_OPERATIONS)
    operation = generator.integers(0, len(OPERATIONS), shape)
    place = generator.integers(0, BINS, shape) if policy == "trivial" else np.full(shape, _RAND_BIN)
    table, signed = magnitudes(policy, size=size)
    back = (generator.random(shape) < 0.5) & signed[operation]
    magnitude = table[operation, place] * np.where(back, -1, 1)
    return AutoDraws(
        operation=torch.from_numpy(operation).to(device),
        magnitude=torch.from_numpy(magnitude.astype(np.float32)).to(device),
    )


def augment(images: Tensor, draws: AutoDraws, rows: Tensor) -> Tensor:
    """uint8 (B, H, W, C) → the same, each image changed as its row (B,) of the draws says."""
    x = images.permute(0, 3, 1, 2).float()
    for number in range(draws.operation.shape[1]):
        chosen = draws.operation[rows, number]
        magnitude = draws.magnitude[rows, number].to(x.device)
        for index, operation in enumerate(OPERATIONS):
            places = torch.nonzero(chosen == index).flatten().to(x.device)
            if len(places):
                x[places] = operation(x[places], magnitude[places]).clamp(0, 255).round()
    return x.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
