"""The loss of a batch: cross-entropy with smoothing, class weights and mixed labels."""

from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What B images show: `labels` int64 (B,); of mixed ones `partners` int64 (B,) too, and `kept` float32 (B,).

    `kept` is the share that each has of its own; the rest is its partner's.
    """

    labels: Tensor
    partners: Tensor | None = None
    kept: Tensor | None = None

    def mean_over(self, of: Callable[[Tensor], Tensor]) -> Tensor:
        """`of` labels (B,), of each image's own and of its partner's as it has shares of them: (B,)."""
        if self.kept is None or self.partners is None:
            return of(self.labels)
        return self.kept * of(self.labels) + (1 - self.kept) * of(self.partners)

    def weight(self, weights: Tensor | None) -> Tensor:
        """What a mean over the images divides by: how many there are, or the sum of their classes' weights (K,)."""
        if weights is None:
            return torch.full((), len(self.labels), dtype=torch.float32, device=self.labels.device)
        return self.mean_over(lambda labels: weights[labels]).sum()


def cross_entropy(logits: Tensor, targets: Targets, *, smoothing: float, weights: Tensor | None) -> Tensor:
    """The mean loss of logits (B, K), in nats.

    `weights` (K,) weigh an image by its label: the smoothed part of a label too, else (as torch would have it)
    smoothing pulls all images towards the rarest class.
    """
    logits = logits.float()
    if targets.kept is None and weights is None:
        return F.cross_entropy(logits, targets.labels, label_smoothing=smoothing)

    def of(labels: Tensor) -> Tensor:
        losses = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        return losses if weights is None else losses * weights[labels]

    return targets.mean_over(of).sum() / targets.weight(weights)
