"""The loss of a batch: cross-entropy with smoothing, class weights and mixed labels."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from models.recipes import Recipe


def class_weights(recipe: Recipe, labels: npt.NDArray[np.int64], classes: int) -> Tensor | None:
    """float32 (K,): `balanced` weighs an image N / (K · images of its class): a rare class counts as much as any."""
    if recipe.class_weights == "none":
        return None
    counts = np.bincount(labels, minlength=classes)
    return torch.from_numpy((len(labels) / (classes * np.maximum(counts, 1))).astype(np.float32))


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    smoothing: float,
    weights: Tensor | None,
    kept: Tensor | None = None,
    partners: Tensor | None = None,
) -> Tensor:
    """The mean loss of logits (B, K), in nats; with `kept` (B,), the rest of each label is its partner's.

    `partners` (B,) are labels; None = each one's neighbour before it. `weights` (K,) weigh an image by its label: the
    smoothed part of a label too, else (as torch would have it) smoothing pulls all images towards the rarest class.
    """
    logits = logits.float()
    if kept is None and weights is None:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    def of(targets: Tensor) -> Tensor:
        losses = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
        return losses if weights is None else losses * weights[targets]

    if kept is None:
        return of(labels).sum() / weight_of(labels, weights=weights, kept=None, partners=None)
    others = labels.roll(1, 0) if partners is None else partners
    losses = kept * of(labels) + (1 - kept) * of(others)
    return losses.sum() / weight_of(labels, weights=weights, kept=kept, partners=others)


def weight_of(labels: Tensor, *, weights: Tensor | None, kept: Tensor | None, partners: Tensor | None) -> Tensor:
    """What the mean loss divides by: how many labels there are, or the sum of their classes' weights."""
    if weights is None:
        return torch.full((), len(labels), dtype=torch.float32, device=labels.device)
    if kept is None or partners is None:
        return weights[labels].sum()
    return (kept * weights[labels] + (1 - kept) * weights[partners]).sum()
