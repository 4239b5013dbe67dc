"""Augmentation in batch, on the device, a pure function of (seed, epoch, visit): a resumed run repeats it.

A visit is a place in the epoch's order; draws have a row for each. Where an image comes once an epoch, its draw is a
function of the sample, too; balanced sampling shows some images more than once, each time with another draw.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.recipes import Recipe
from worker.trainer import auto_augment, mixing

_ORDER, _DRAWS, _ERASING, _AUTO, _MIXING, _BOXES = range(1, 7)  # streams of randomness
_ATTEMPTS = 10  # at a crop of the drawn area and ratio that fits, as torchvision's RandomResizedCrop has it


def _generator(seed: int, epoch: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, stream])))


def order(*, samples: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order in which an epoch visits the samples."""
    return _generator(seed, epoch, _ORDER).permutation(samples)


def balanced_order(labels: npt.NDArray[np.int64], *, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """As many visits as there are samples, each class as often as the others: rare ones repeat, common ones miss some.

    A class's samples come in turn, each before any of them comes again.
    """
    generator = _generator(seed, epoch, _ORDER)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    turns = np.array_split(np.arange(len(labels)), len(members))
    share = [len(turn) for turn in turns]
    chosen = [
        np.concatenate([generator.permutation(own) for _ in range(-(-count // len(own)))])[:count]
        for own, count in zip(members, share, strict=True)
    ]
    return generator.permutation(np.concatenate(chosen))


@dataclass(frozen=True, kw_only=True)
class Draws:
    """One row of random choices for each visit of an epoch.

    `dy`, `dx` int64 (N,) shifts in pixels; `flip` bool (N,); `cy`, `cx` int64 (N,) the centre of the cut-out square;
    `box` int64 (N, 4) top, left, height and width of the crop that is resized; `erased` int64 (N, 4) rows and columns
    from-to of the erased rectangle, empty where there is none.
    """

    dy: Tensor
    dx: Tensor
    flip: Tensor
    cy: Tensor
    cx: Tensor
    box: Tensor | None = None
    erased: Tensor | None = None
    auto: auto_augment.AutoDraws | None = None
    mix: mixing.MixDraws | None = None


def draw(recipe: Recipe, *, samples: int, epoch: int, device: torch.device) -> Draws:
    generator = _generator(recipe.seed, epoch, _DRAWS)
    shift, size = recipe.crop_padding, recipe.image_size
    table = [generator.integers(-shift, shift + 1, samples) for _ in range(2)]
    flip = generator.random(samples) < 0.5
    table += [generator.integers(0, size, samples) for _ in range(2)]
    dy, dx, cy, cx = (torch.from_numpy(column).to(device) for column in table)
    return Draws(
        dy=dy,
        dx=dx,
        flip=torch.from_numpy(flip).to(device),
        cy=cy,
        cx=cx,
        box=_boxes(recipe, _generator(recipe.seed, epoch, _BOXES), samples).to(device)
        if recipe.random_resized_crop is not None
        else None,
        erased=_rectangles(recipe, _generator(recipe.seed, epoch, _ERASING), samples).to(device)
        if recipe.erasing
        else None,
        auto=auto_augment.draw(
            recipe.auto_augment,
            _generator(recipe.seed, epoch, _AUTO),
            size=recipe.image_size,
            visits=samples,
            device=device,
        )
        if recipe.auto_augment != "none"
        else None,
        mix=mixing.draw(recipe, _generator(recipe.seed, epoch, _MIXING), rows=samples, device=device)
        if recipe.mixup or recipe.cutmix
        else None,
    )


def _boxes(recipe: Recipe, generator: np.random.Generator, samples: int) -> Tensor:
    """Crops of a random share of the canvas, sides in a ratio of 3:4 to 4:3; the whole of it where none fits."""
    size, (least, most) = recipe.canvas, recipe.random_resized_crop or (1.0, 1.0)
    area = generator.uniform(least, most, (samples, _ATTEMPTS)) * size**2
    ratio = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3), (samples, _ATTEMPTS)))
    height, width = np.sqrt(area / ratio).round().clip(1), np.sqrt(area * ratio).round().clip(1)
    fits = (height <= size) & (width <= size)
    first = np.arange(samples), fits.argmax(axis=1)
    height = np.where(fits.any(axis=1), height[first], size)
    width = np.where(fits.any(axis=1), width[first], size)
    top = np.floor(generator.random(samples) * (size - height + 1))
    left = np.floor(generator.random(samples) * (size - width + 1))
    return torch.from_numpy(np.stack([top, left, height, width], axis=1).astype(np.int64))


def _rectangles(recipe: Recipe, generator: np.random.Generator, samples: int) -> Tensor:
    """Random erasing (Zhong et al. 2017): 2 to 33 % of the area, sides in a ratio of 0.3 to 3.3."""
    size = recipe.image_size
    area = generator.uniform(0.02, 0.33, samples) * size**2
    ratio = np.exp(generator.uniform(np.log(0.3), np.log(3.3), samples))
    drawn = generator.random(samples) < recipe.erasing
    height = np.clip(np.sqrt(area * ratio).round(), 1, size) * drawn
    width = np.clip(np.sqrt(area / ratio).round(), 1, size) * drawn
    top = np.floor(generator.random(samples) * (size - height + 1))
    left = np.floor(generator.random(samples) * (size - width + 1))
    return torch.from_numpy(np.stack([top, top + height, left, left + width], axis=1).astype(np.int64))


def crop_and_flip(pixels: Tensor, samples: Tensor, rows: Tensor, draws: Draws, *, flip: bool) -> Tensor:
    """The `samples` (B,) of pixels (N, H, W, C), each shifted by its draw (edges reflected) and mirrored where drawn.

    `rows` (B,) are the draws' rows. One gather does both: an output pixel is looked up by its place in the source.
    """
    height, width = pixels.shape[1:3]
    ys = _reflect(torch.arange(height, device=rows.device) + draws.dy[rows, None], height)
    xs = _reflect(torch.arange(width, device=rows.device) + draws.dx[rows, None], width)
    if flip:
        xs = torch.where(draws.flip[rows, None], xs.flip(1), xs)
    return pixels[samples[:, None, None], ys[:, :, None], xs[:, None, :]]


def _reflect(position: Tensor, size: int) -> Tensor:
    """Positions outside 0…size-1 mirrored at the edge pixels, which are not repeated."""
    position = position.abs()
    return (size - 1) - (size - 1 - position).abs()


def resized_crop(pixels: Tensor, samples: Tensor, boxes: Tensor, mirrored: Tensor, *, size: int) -> Tensor:
    """The `boxes` (B, 4) of the `samples` (B,) of pixels (N, H, W, C), scaled to uint8 (B, size, size, C).

    `boxes` are rows of `Draws.box`; they are mirrored where `mirrored` (B,) says so. Bilinear between the four nearest
    pixels of the box, without antialiasing: a box is at most the canvas, which is 1.14 times `size` in the recipes that
    crop so, and stays so when image_size alone is overridden. Only a `resize` that somebody set scales down by more.
    """
    top, left, height, width = boxes.unbind(1)
    (y0, y1, fy), (x0, x1, fx) = _taps(top, height, size), _taps(left, width, size)
    x0, x1, fx = (torch.where(mirrored[:, None], x.flip(1), x) for x in (x0, x1, fx))
    index = samples[:, None, None]
    y0, y1, fy = (y[:, :, None] for y in (y0, y1, fy))
    x0, x1, fx = (x[:, None, :] for x in (x0, x1, fx))
    upper = torch.lerp(pixels[index, y0, x0].float(), pixels[index, y0, x1].float(), fx[..., None])
    lower = torch.lerp(pixels[index, y1, x0].float(), pixels[index, y1, x1].float(), fx[..., None])
    return torch.lerp(upper, lower, fy[..., None]).round().to(torch.uint8)


def _taps(start: Tensor, length: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `size` pixels: the two positions (B, size) that it lies between, and how far towards the second.

    Pixels are areas (`align_corners=False`); what would lie outside the box is its edge.
    """
    centre = torch.arange(size, device=start.device) + 0.5
    position = (centre * (length[:, None] / size) - 0.5).clamp(min=0)
    first = position.floor()
    second = torch.minimum(first + 1, length[:, None] - 1)
    return start[:, None] + first.long(), start[:, None] + second.long(), position - first


def batch(pixels: Tensor, samples: Tensor, rows: Tensor, draws: Draws, recipe: Recipe) -> Tensor:
    """The images of a batch, uint8 (B, H, W, C), cropped, flipped and changed as drawn; all on one device."""
    if draws.box is not None:
        mirrored = draws.flip[rows] & recipe.horizontal_flip
        images = resized_crop(pixels, samples, draws.box[rows], mirrored, size=recipe.image_size)
    elif recipe.crop_padding or recipe.horizontal_flip:
        images = crop_and_flip(pixels, samples, rows, draws, flip=recipe.horizontal_flip)
    else:
        images = pixels[samples]
    if draws.auto is None:
        return images
    return auto_augment.augment(images, draws.auto, rows)


def hide(inputs: Tensor, rows: Tensor, draws: Draws, *, cutout: int) -> Tensor:
    """Inputs (B, C, H, W) with what the draws hide set to 0, the mean: the cut-out square and the erased rectangle."""
    if cutout:
        low, high = -(cutout // 2), cutout - cutout // 2
        inputs = _blank(
            inputs, draws.cy[rows] + low, draws.cy[rows] + high, draws.cx[rows] + low, draws.cx[rows] + high
        )
    if draws.erased is not None:
        inputs = _blank(inputs, *draws.erased[rows].unbind(1))
    return inputs


def _blank(inputs: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor) -> Tensor:
    height, width = inputs.shape[2:]
    y, x = torch.arange(height, device=inputs.device), torch.arange(width, device=inputs.device)
    rows = (y >= top[:, None]) & (y < bottom[:, None])
    columns = (x >= left[:, None]) & (x < right[:, None])
    return inputs.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)
