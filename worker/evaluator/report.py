"""What an evaluation says: the trainer's figures, how sure the model was, and where it was most wrongly sure."""

import math
from typing import Any

import numpy as np

from worker.trainer import metrics
from worker.trainer.metrics import Bins, Labels, Logits

WORST = 25
_CLASSES_OF_TOP5 = 5  # with fewer, the five best are all of them
_SURE = 3.0  # standard errors


def summary(logits: Logits, labels: Labels, classes: tuple[str, ...], temperature: float) -> dict[str, Any]:
    """Figures of logits (N, K) against labels (N,), both in the model's class indices.

    Names ending in `_uncalibrated` are those at temperature 1; `top5` is null with fewer than five classes, `confusion`
    and `per_class` are in the classes' order, the confusion matrix with a row for each true class.
    """
    figures = metrics.report(logits, labels, classes, temperature)
    return {
        **figures,
        "top5": figures["top5"] if len(classes) >= _CLASSES_OF_TOP5 else None,
        "brier": metrics.brier(logits, labels, temperature),
        "brier_uncalibrated": metrics.brier(logits, labels),
    }


def seems_learned(*, right: int, of: int, elsewhere: int, of_elsewhere: int) -> bool:
    """Whether a model is `right` on so many more `of` some images than `elsewhere` that chance does not explain it.

    That is a difference of more than three standard errors (the test of two proportions, pooled).
    """
    pooled = (right + elsewhere) / (of + of_elsewhere)
    error = math.sqrt(pooled * (1 - pooled) * (1 / of + 1 / of_elsewhere))
    return right / of - elsewhere / of_elsewhere > _SURE * error


def single(figures: dict[str, Any]) -> dict[str, Any]:
    """Those of the figures that are one value each: an event, a line of a table."""
    return {name: value for name, value in figures.items() if name not in ("per_class", "confusion")}


def reliability(bins: Bins) -> list[dict[str, Any]]:
    """Each bin of confidence as its limits, its images, their mean confidence and the share that was right."""
    edges = np.linspace(0, 1, len(bins.images) + 1)
    return [
        {
            "from": round(float(edges[i]), 6),
            "to": round(float(edges[i + 1]), 6),
            "images": int(count),
            "confidence": float(bins.confidence[i] / count) if count else None,
            "accuracy": float(bins.correct[i] / count) if count else None,
        }
        for i, count in enumerate(bins.images)
    ]


def worst_mistakes(
    logits: Logits, labels: Labels, classes: tuple[str, ...], temperature: float
) -> list[dict[str, Any]]:
    """The 25 wrong answers of which the model was surest, the surest first.

    `index` counts the images of the split from 0, as the dataset stores them.
    """
    probability = np.exp(metrics.log_softmax(logits, temperature))
    predicted = logits.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    surest = wrong[np.argsort(-probability[wrong, predicted[wrong]], kind="stable")][:WORST]
    return [
        {
            "index": int(i),
            "label": classes[labels[i]],
            "predicted": classes[predicted[i]],
            "probability": float(probability[i, predicted[i]]),
            "probability_of_label": float(probability[i, labels[i]]),
        }
        for i in surest
    ]
