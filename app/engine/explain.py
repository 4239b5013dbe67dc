"""Where in an image a network saw a class: Grad-CAM, and its picture."""

import copy
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from models.runtime import Runtime

_SHORT_SIDE = 224  # pixels that a picture has at least: 32×32 is hard to look at
_OPACITY = 0.65  # of the warmest colour
# From cold to warm: blue, cyan, green, yellow, red; then the steps between them, (256, 3).
_COLOURS = np.array([(0, 0, 160), (0, 180, 255), (60, 220, 90), (255, 225, 0), (220, 0, 0)])
_PLACES = np.linspace(0, 255, len(_COLOURS))
_RAMP = np.stack([np.interp(np.arange(256), _PLACES, channel) for channel in _COLOURS.T], axis=-1).astype(np.float32)


@dataclass(frozen=True)
class Explanation:
    """`heat` float32 (h, w), 0 to 1, over the cells of the last stage; `logits` float32 (K,) of the same pass."""

    class_index: int
    logits: npt.NDArray[np.float32]
    heat: npt.NDArray[np.float32]


class _Taped(nn.Module):
    """A layer that puts down what it gives. The layer itself is not touched: another thread may be using it."""

    def __init__(self, layer: nn.Module, tape: list[Tensor]) -> None:
        super().__init__()
        self.layer = layer
        self._tape = tape

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        self._tape.append(out)
        return out


def grad_cam(runtime: Runtime, pixels: npt.NDArray[np.uint8], *, class_index: int | None) -> Explanation:
    """Grad-CAM (Selvaraju et al. 2017) of one prepared image uint8 (H, W, C), by the float32 network.

    The last stage's channels, weighted by the mean gradient of the class's logit, added up; what speaks against the
    class is cut off, and the largest value is 1. Where nothing speaks for the class the map is zero. With a test-time
    flip, the mirror image's map is mirrored back and added. `class_index` None is the likeliest class. Raises
    ValueError for a class that the network does not have.
    """
    tape: list[Tensor] = []
    network = copy.copy(runtime.network)
    taped = {name: _Taped(layer, tape) for name, layer in network.named_children()}
    network._modules = dict(taped)  # noqa: SLF001 - the copy's own table, not the network's
    with torch.enable_grad():
        views = runtime.input(pixels[None]).requires_grad_()
        if runtime.manifest.test_time_flip:
            views = torch.cat([views, views.flip(-1)])
        logits: Tensor = network(views).mean(0)
        chosen = int(logits.argmax()) if class_index is None else class_index
        if not 0 <= chosen < len(logits):
            raise ValueError(f"class_index {chosen} is none of the model's: it has 0 to {len(logits) - 1}")
        stage = _last_stage(tape)
        (gradient,) = torch.autograd.grad(logits[chosen], stage)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    upright, *mirrored = (weights * stage.detach()).sum(dim=1)
    heat = sum((view.flip(-1) for view in mirrored), upright).relu()
    heat = heat / heat.max().clamp_min(torch.finfo(heat.dtype).tiny)
    return Explanation(chosen, logits.detach().float().cpu().numpy(), heat.float().cpu().numpy())


def _last_stage(tape: list[Tensor]) -> Tensor:
    """The last output with channels and places, (V, C, h, w) of V views: of more than one place, where there is one."""
    maps = [out for out in tape if out.ndim == 4]
    wide = [out for out in maps if out.shape[2] * out.shape[3] > 1]
    return (wide or maps)[-1]


def overlay(pixels: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32]) -> bytes:
    """The prepared image uint8 (H, W, C) under its heat (h, w), a PNG file; small images are enlarged."""
    height, width, _ = pixels.shape
    factor = -(-_SHORT_SIDE // min(height, width)) if min(height, width) < _SHORT_SIDE else 1
    size = (width * factor, height * factor)
    picture = np.asarray(image_of(pixels).convert("RGB").resize(size, Image.Resampling.NEAREST), dtype=np.float32)
    steps = Image.fromarray(np.rint(heat * 255).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    warmth = np.asarray(steps)
    opacity = (_OPACITY / 255 * warmth.astype(np.float32))[:, :, None]
    mixed = picture + (_RAMP[warmth] - picture) * opacity
    return png(np.rint(mixed).astype(np.uint8))


def image_of(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """Pixels uint8 (H, W, C), C 1 or 3, as a grey or RGB image."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Pixels uint8 (H, W, C), C 1 or 3, as a PNG file, which loses nothing."""
    file = BytesIO()
    image_of(pixels).save(file, "PNG")
    return file.getvalue()
