"""A residual network computed from nothing but its state dict: what the plain layout gives, whoever wrote it.

It shares no code with `models/networks`, so that a translation of names that went wrong shows in the logits.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

_EPS = 1e-5  # of every BatchNorm of these families
_HEADS = ("fc", "linear", "classifier", "head", "last_linear", "output")
_SHORTCUTS = ("downsample", "shortcut", "skip")


def is_plain(state: Mapping[str, Tensor]) -> bool:
    """Whether the state dict has the usual layout: conv1, bn1, stages of blocks with bn1, a head; and no biases."""
    stage = _stage_word(state)
    blocks = f"{stage}1.0.bn1.weight" in state and "bn1.weight" in state and "conv1.bias" not in state
    return blocks and any(f"{head}.weight" in state for head in _HEADS)


@torch.inference_mode()
def logits(state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Logits (N, K) of prepared images float32 (N, C, H, W), by the names of the file.

    Blocks have two or three convolutions, the first block of each later stage halves the size (in its 3×3 convolution,
    as torchvision and the CIFAR networks have it). Without weights of its own a shortcut that changes shape takes every
    second pixel and fills up with zero channels (He et al. 2015, option A).
    """
    stage = _stage_word(state)
    large = state["conv1.weight"].shape[-1] == 7
    x = F.conv2d(images, state["conv1.weight"], stride=2 if large else 1, padding=3 if large else 1)
    x = F.relu(_norm(state, "bn1", x))
    if large:
        x = F.max_pool2d(x, 3, stride=2, padding=1)
    for number in range(1, 5):
        block = 0
        while f"{stage}{number}.{block}.conv1.weight" in state:
            x = _block(state, f"{stage}{number}.{block}.", x, stride=2 if number > 1 and block == 0 else 1)
            block += 1
    head = next(head for head in _HEADS if f"{head}.weight" in state)
    return F.linear(x.mean(dim=(2, 3)), state[f"{head}.weight"], state[f"{head}.bias"])


def _block(state: Mapping[str, Tensor], place: str, x: Tensor, *, stride: int) -> Tensor:
    bottleneck = f"{place}conv3.weight" in state
    strides = (1, stride, 1) if bottleneck else (stride, 1)
    out = x
    for number, step in enumerate(strides, start=1):
        weight = state[f"{place}conv{number}.weight"]
        groups = out.shape[1] // weight.shape[1]
        out = F.conv2d(out, weight, stride=step, padding=weight.shape[-1] // 2, groups=groups)
        out = _norm(state, f"{place}bn{number}", out)
        if number < len(strides):
            out = F.relu(out)
    return F.relu(out + _shortcut(state, place, x, stride=stride, channels=out.shape[1]))


def _shortcut(state: Mapping[str, Tensor], place: str, x: Tensor, *, stride: int, channels: int) -> Tensor:
    for word in _SHORTCUTS:
        if f"{place}{word}.0.weight" in state:
            return _norm(state, f"{place}{word}.1", F.conv2d(x, state[f"{place}{word}.0.weight"], stride=stride))
    new = channels - x.shape[1]
    if stride == 1 and new == 0:
        return x
    return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, new // 2, new - new // 2))


def _norm(state: Mapping[str, Tensor], place: str, x: Tensor) -> Tensor:
    mean, variance = state[f"{place}.running_mean"], state[f"{place}.running_var"]
    return F.batch_norm(x, mean, variance, state[f"{place}.weight"], state[f"{place}.bias"], eps=_EPS)


def _stage_word(state: Mapping[str, Tensor]) -> str:
    return "stage" if any(name.startswith("stage1.") for name in state) else "layer"
