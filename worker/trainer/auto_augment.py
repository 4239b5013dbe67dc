"""TrivialAugment (Müller and Hutter 2021) and RandAugment (Cubuk et al. 2020) on a batch, each image by its own draw.

The operations and their strengths are those of torchvision's `TrivialAugmentWide` and `RandAugment`; here they run on
the device, on uint8 (B, H, W, C), and a draw is a function of seed, epoch and row like every other.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_LUMA = (0.2989, 0.587, 0.114)
_POSTERIZE_BITS = 6  # of eight, the most that TrivialAugment takes away
_RAND_STRENGTH = 9 / 30  # RandAugment's magnitude 9 of 31
_RAND_OPERATIONS = 2

#: Each operation takes float32 (B, C, H, W) of 0–255 and a signed strength (B,) in −1…1, and gives float32 of 0–255.
Operation = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class AutoDraws:
    """For each of N samples and each of R rounds: `operation` int64 (N, R) and signed `strength` float32 (N, R)."""

    operation: Tensor
    strength: Tensor


def draw(policy: str, generator: np.random.Generator, *, samples: int, device: torch.device) -> AutoDraws:
    """`policy` "trivial": one operation of any strength; "rand": two of RandAugment's usual strength."""
    rounds = 1 if policy == "trivial" else _RAND_OPERATIONS
    operation = generator.integers(0, len(OPERATIONS), (samples, rounds))
    size = generator.random((samples, rounds)) if policy == "trivial" else np.full((samples, rounds), _RAND_STRENGTH)
    sign = np.where(generator.random((samples, rounds)) < 0.5, -1.0, 1.0)
    return AutoDraws(
        operation=torch.from_numpy(operation).to(device),
        strength=torch.from_numpy((size * sign).astype(np.float32)).to(device),
    )


def augment(images: Tensor, draws: AutoDraws, samples: Tensor, *, wide: bool) -> Tensor:
    """uint8 (B, H, W, C) → the same, each image changed as drawn. `wide` takes TrivialAugment's stronger geometry."""
    x = images.permute(0, 3, 1, 2).float()
    scale = 1.0 if wide else _NARROW
    for number in range(draws.operation.shape[1]):
        chosen = draws.operation[samples, number]
        strength = draws.strength[samples, number].to(x.device)
        for index, (operation, geometric) in enumerate(OPERATIONS):
            rows = torch.nonzero(chosen == index).flatten().to(x.device)
            if len(rows):
                how = strength[rows] * (scale if geometric else 1.0)
                x[rows] = operation(x[rows], how).clamp(0, 255).round()
    return x.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


_NARROW = 0.3  # RandAugment's shear of 0.3 against TrivialAugment's 0.99, its 30 degrees against 135, its shifts alike


def _affine(x: Tensor, matrix: Tensor) -> Tensor:
    """Each image seen through its own matrix (B, 2, 3), in pixels about the centre; what is outside is black."""
    _, _, height, width = x.shape
    size = torch.tensor([width / 2, height / 2], device=x.device)
    to_unit = matrix.clone()
    to_unit[:, 0, 1] *= size[1] / size[0]
    to_unit[:, 1, 0] *= size[0] / size[1]
    to_unit[:, :, 2] /= size
    grid = F.affine_grid(to_unit, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="nearest", align_corners=False)


def _matrices(strength: Tensor) -> Tensor:
    identity = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], device=strength.device)
    return identity.repeat(len(strength), 1, 1)


def _identity(x: Tensor, _strength: Tensor) -> Tensor:
    return x


def _shear_x(x: Tensor, strength: Tensor) -> Tensor:
    matrix = _matrices(strength)
    matrix[:, 0, 1] = 0.99 * strength
    return _affine(x, matrix)


def _shear_y(x: Tensor, strength: Tensor) -> Tensor:
    matrix = _matrices(strength)
    matrix[:, 1, 0] = 0.99 * strength
    return _affine(x, matrix)


def _translate_x(x: Tensor, strength: Tensor) -> Tensor:
    matrix = _matrices(strength)
    matrix[:, 0, 2] = (strength * x.shape[3]).round()
    return _affine(x, matrix)


def _translate_y(x: Tensor, strength: Tensor) -> Tensor:
    matrix = _matrices(strength)
    matrix[:, 1, 2] = (strength * x.shape[2]).round()
    return _affine(x, matrix)


def _rotate(x: Tensor, strength: Tensor) -> Tensor:
    angle = torch.deg2rad(135.0 * strength)
    matrix = _matrices(strength)
    matrix[:, 0, 0] = matrix[:, 1, 1] = torch.cos(angle)
    matrix[:, 0, 1], matrix[:, 1, 0] = -torch.sin(angle), torch.sin(angle)
    return _affine(x, matrix)


def _blend(x: Tensor, other: Tensor, strength: Tensor) -> Tensor:
    """`other` at strength −1, `x` at 0, as far beyond `x` at 1; 0.99 as in the paper."""
    return other + (x - other) * (1 + 0.99 * strength)[:, None, None, None]


def _grey(x: Tensor) -> Tensor:
    if x.shape[1] == 1:
        return x
    return (x * torch.tensor(_LUMA, device=x.device)[:, None, None]).sum(1, keepdim=True)


def _brightness(x: Tensor, strength: Tensor) -> Tensor:
    return _blend(x, torch.zeros_like(x), strength)


def _colour(x: Tensor, strength: Tensor) -> Tensor:
    return _blend(x, _grey(x).expand_as(x), strength)


def _contrast(x: Tensor, strength: Tensor) -> Tensor:
    mean = _grey(x).floor().mean(dim=(1, 2, 3), keepdim=True)
    return _blend(x, mean.expand_as(x), strength)


def _sharpness(x: Tensor, strength: Tensor) -> Tensor:
    """Against a 3×3 blur with a heavy centre; the border stays."""
    channels = x.shape[1]
    kernel = torch.ones(3, 3, device=x.device)
    kernel[1, 1] = 5.0
    weight = (kernel / kernel.sum()).expand(channels, 1, 3, 3)
    blurred = x.clone()
    blurred[:, :, 1:-1, 1:-1] = F.conv2d(x, weight, groups=channels).round()
    return _blend(x, blurred, strength)


def _posterize(x: Tensor, strength: Tensor) -> Tensor:
    step = 2.0 ** (strength.abs() * _POSTERIZE_BITS).round()[:, None, None, None]
    return (x / step).floor() * step


def _solarize(x: Tensor, strength: Tensor) -> Tensor:
    threshold = (255.0 * (1 - strength.abs()))[:, None, None, None]
    return torch.where(x >= threshold, 255.0 - x, x)


def _autocontrast(x: Tensor, _strength: Tensor) -> Tensor:
    low, high = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, ((x - low) * (255.0 / (high - low).clamp(min=1.0))).floor(), x)


def _equalize(x: Tensor, _strength: Tensor) -> Tensor:
    """Each channel's histogram made flat, as Pillow does it."""
    images, channels, height, width = x.shape
    planes = x.long().reshape(images * channels, height * width)
    place = torch.arange(len(planes), device=x.device)[:, None] * 256 + planes
    counts = torch.bincount(place.flatten(), minlength=len(planes) * 256).reshape(len(planes), 256)
    last = (counts * (counts.flip(1).cumsum(1).flip(1) == counts)).sum(1)  # the pixels of the brightest value
    step = (height * width - last) // 255
    table = ((counts.cumsum(1) - counts) + (step // 2)[:, None]) // step.clamp(min=1)[:, None]
    table = torch.where(step[:, None] > 0, table.clamp(0, 255), torch.arange(256, device=x.device))
    return table.gather(1, planes).reshape(x.shape).float()


OPERATIONS: tuple[tuple[Operation, bool], ...] = (
    (_identity, False),
    (_shear_x, True),
    (_shear_y, True),
    (_translate_x, True),
    (_translate_y, True),
    (_rotate, True),
    (_brightness, False),
    (_colour, False),
    (_contrast, False),
    (_sharpness, False),
    (_posterize, False),
    (_solarize, False),
    (_autocontrast, False),
    (_equalize, False),
)
