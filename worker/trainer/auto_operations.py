"""The operations of automatic augmentation, as torchvision has them, on a batch; each image by its own magnitude."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

_LUMA = (0.2989, 0.587, 0.114)

#: Each takes float32 (B, C, H, W) of 0–255 and its magnitude (B,), and gives float32 of 0–255.
Operation = Callable[[Tensor, Tensor], Tensor]


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


def _matrices(magnitude: Tensor) -> Tensor:
    identity = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], device=magnitude.device)
    return identity.repeat(len(magnitude), 1, 1)


def identity(x: Tensor, _magnitude: Tensor) -> Tensor:
    return x


def shear_x(x: Tensor, slope: Tensor) -> Tensor:
    """About the upper left corner, as torchvision has it: the first row stays."""
    matrix = _matrices(slope)
    matrix[:, 0, 1] = slope
    matrix[:, 0, 2] = slope * x.shape[2] / 2
    return _affine(x, matrix)


def shear_y(x: Tensor, slope: Tensor) -> Tensor:
    matrix = _matrices(slope)
    matrix[:, 1, 0] = slope
    matrix[:, 1, 2] = slope * x.shape[3] / 2
    return _affine(x, matrix)


def translate_x(x: Tensor, pixels: Tensor) -> Tensor:
    matrix = _matrices(pixels)
    matrix[:, 0, 2] = -pixels.trunc()
    return _affine(x, matrix)


def translate_y(x: Tensor, pixels: Tensor) -> Tensor:
    matrix = _matrices(pixels)
    matrix[:, 1, 2] = -pixels.trunc()
    return _affine(x, matrix)


def rotate(x: Tensor, degrees: Tensor) -> Tensor:
    angle = torch.deg2rad(degrees)
    matrix = _matrices(degrees)
    matrix[:, 0, 0] = matrix[:, 1, 1] = torch.cos(angle)
    matrix[:, 0, 1], matrix[:, 1, 0] = -torch.sin(angle), torch.sin(angle)
    return _affine(x, matrix)


def _blend(x: Tensor, other: Tensor, gain: Tensor) -> Tensor:
    """`other` at a gain of −1, `x` at 0, as far beyond `x` at 1."""
    return other + (x - other) * (1 + gain)[:, None, None, None]


def _grey(x: Tensor) -> Tensor:
    if x.shape[1] == 1:
        return x
    return (x * torch.tensor(_LUMA, device=x.device)[:, None, None]).sum(1, keepdim=True).floor()


def brightness(x: Tensor, gain: Tensor) -> Tensor:
    return _blend(x, torch.zeros_like(x), gain)


def colour(x: Tensor, gain: Tensor) -> Tensor:
    return _blend(x, _grey(x).expand_as(x), gain)


def contrast(x: Tensor, gain: Tensor) -> Tensor:
    mean = _grey(x).mean(dim=(1, 2, 3), keepdim=True)
    return _blend(x, mean.expand_as(x), gain)


def sharpness(x: Tensor, gain: Tensor) -> Tensor:
    """Against a 3×3 blur with a heavy centre; the border stays."""
    channels = x.shape[1]
    kernel = torch.ones(3, 3, device=x.device)
    kernel[1, 1] = 5.0
    weight = (kernel / kernel.sum()).expand(channels, 1, 3, 3)
    blurred = x.clone()
    blurred[:, :, 1:-1, 1:-1] = F.conv2d(x, weight, groups=channels).round()
    return _blend(x, blurred, gain)


def posterize(x: Tensor, bits: Tensor) -> Tensor:
    step = 2.0 ** (8 - bits)[:, None, None, None]
    return (x / step).floor() * step


def solarize(x: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(x >= threshold[:, None, None, None], 255.0 - x, x)


def autocontrast(x: Tensor, _magnitude: Tensor) -> Tensor:
    low, high = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, ((x - low) * (255.0 / (high - low).clamp(min=1.0))).floor(), x)


def equalize(x: Tensor, _magnitude: Tensor) -> Tensor:
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


OPERATIONS: tuple[Operation, ...] = (
    identity,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
    rotate,
    brightness,
    colour,
    contrast,
    sharpness,
    posterize,
    solarize,
    autocontrast,
    equalize,
)
