"""What an evaluation says of predictions: pure functions of logits (N, K) and labels (N,), in NumPy."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_CONFUSION_CLASSES = 200  # a matrix of more would be most of an event and of model.json
_BINS = 15  # Guo et al. 2017


def log_softmax(logits: npt.NDArray[np.floating], temperature: float = 1.0) -> npt.NDArray[np.float64]:
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    result: npt.NDArray[np.float64] = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return result


def log_loss(logits: Logits, labels: Labels, temperature: float = 1.0) -> float:
    """The mean negative log-likelihood, in nats."""
    return float(-log_softmax(logits, temperature)[np.arange(len(labels)), labels].mean())


def top_k(logits: Logits, labels: Labels, k: int) -> float:
    """The share of images whose label is among the k largest logits; of equal logits the lower class index counts."""
    best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


def brier(logits: Logits, labels: Labels, temperature: float = 1.0) -> float:
    """The mean squared distance of the probabilities from the truth, summed over classes, 0–2 (Brier 1950)."""
    distance = np.exp(log_softmax(logits, temperature))
    distance[np.arange(len(labels)), labels] -= 1.0
    return float((distance**2).sum(axis=1).mean())


@dataclass(frozen=True)
class Bins:
    """Predictions by confidence, in 15 bins of equal width: how many, the sum of confidences, how many were right."""

    images: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    correct: npt.NDArray[np.float64]


def confidence_bins(logits: Logits, labels: Labels, temperature: float = 1.0) -> Bins:
    """What a reliability diagram shows (Guo et al. 2017)."""
    probability = np.exp(log_softmax(logits, temperature))
    confidence, correct = probability.max(axis=1), probability.argmax(axis=1) == labels
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    return Bins(
        images=np.bincount(bins, minlength=_BINS),
        confidence=np.bincount(bins, weights=confidence, minlength=_BINS).astype(np.float64),
        correct=np.bincount(bins, weights=correct, minlength=_BINS).astype(np.float64),
    )


def ece(logits: Logits, labels: Labels, temperature: float = 1.0) -> float:
    """Expected calibration error in 15 bins of equal width (Guo et al. 2017)."""
    bins = confidence_bins(logits, labels, temperature)
    return float(np.abs(bins.correct - bins.confidence).sum() / len(labels))


def confusion(predicted: Labels, labels: Labels, classes: int) -> Iterator[npt.NDArray[np.int64]]:
    """The confusion matrix row by row, as of many classes it is large: for each true class K counts of predictions."""
    by_label = predicted[np.argsort(labels, kind="stable")]
    ends = np.cumsum(np.bincount(labels, minlength=classes))
    for own in np.split(by_label, ends[:-1]):
        yield np.bincount(own, minlength=classes)


def per_class(predicted: Labels, labels: Labels, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support of each class; 0 where a class was never predicted or never seen."""
    told, support, hits = (
        np.bincount(each, minlength=len(classes)) for each in (predicted, labels, labels[predicted == labels])
    )
    precision = hits / np.maximum(told, 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(told + support, 1)
    return [
        {
            "label": label,
            "precision": round(float(precision[i]), 6),
            "recall": round(float(recall[i]), 6),
            "f1": round(float(f1[i]), 6),
            "support": int(support[i]),
        }
        for i, label in enumerate(classes)
    ]


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """The temperature with the least log loss (Guo et al. 2017), by golden section over its logarithm, in 0.05–20.

    Labels count for (N + 1) / (N + 2) as in Platt 1999, the rest for all classes alike: a few dozen images without a
    mistake say little about how rare mistakes are, and must not make every probability 1.
    """
    rest, rows = 1 / (len(labels) + 2), np.arange(len(labels))

    def loss(logarithm: float) -> float:
        likelihood = log_softmax(logits, float(np.exp(logarithm)))
        return float(-((1 - rest) * likelihood[rows, labels] + rest * likelihood.mean(axis=1)).mean())

    ratio = (5**0.5 - 1) / 2
    low, high = float(np.log(0.05)), float(np.log(20.0))
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(40):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = loss(right)
    return round(float(np.exp((low + high) / 2)), 6)


def report(logits: Logits, labels: Labels, classes: tuple[str, ...], temperature: float) -> dict[str, Any]:
    """Everything that an evaluation says. `log_loss` and `ece` are calibrated, as served.

    `confusion` is null above 200 classes; `confusion.csv` has it for any number.
    """
    predicted = logits.argmax(axis=1)
    correct = int((predicted == labels).sum())
    few = len(classes) <= _CONFUSION_CLASSES
    return {
        "top1": correct / len(labels),
        "top5": top_k(logits, labels, 5),
        "correct": correct,
        "total": len(labels),
        "log_loss": log_loss(logits, labels, temperature),
        "log_loss_uncalibrated": log_loss(logits, labels),
        "ece": ece(logits, labels, temperature),
        "ece_uncalibrated": ece(logits, labels),
        "temperature": temperature,
        "per_class": per_class(predicted, labels, classes),
        "confusion": [row.tolist() for row in confusion(predicted, labels, len(classes))] if few else None,
    }
