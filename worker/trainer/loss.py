"""The loss of a batch: cross-entropy with smoothing, class weights and mixed labels."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from models.recipes import Recipe


def class_weights(recipe: Recipe, labels: npt.NDArray[np.int64], classes: int) -> Tensor | None:
    """float32 (K,): `balanced` weighs a class by N / (K · its images): a rare one counts as much as a common one."""
    if recipe.class_weights == "none":
        return None
    counts = np.bincount(labels, minlength=classes)
    return torch.from_numpy((len(labels) / (classes * np.maximum(counts, 1))).astype(np.float32))


def cross_entropy(
    logits: Tensor, labels: Tensor, *, smoothing: float, weights: Tensor | None, kept: Tensor | None = None
) -> Tensor:
    """The mean loss of logits (B, K), in nats; with `kept` (B,), the rest of each label is its neighbour's."""
    logits = logits.float()
    if kept is None:
        return F.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing)

    def of(targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing, reduction="none")

    partners = labels.roll(1, 0)
    losses = kept * of(labels) + (1 - kept) * of(partners)
    if weights is None:
        return losses.mean()
    return losses.sum() / (kept * weights[labels] + (1 - kept) * weights[partners]).sum()
