"""An evaluation as files: figures as JSON and CSV, drawings as SVG and PNG; those of a job and of a training's end."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from matplotlib.figure import Figure

from store.files import write_atomic
from worker.evaluator import report
from worker.figures import confusion, mistakes, reliability
from worker.figures.files import draw
from worker.trainer import metrics
from worker.trainer.metrics import Labels, Logits

_DRAWN_CLASSES = 200  # of a confusion matrix


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """`figures` are those of `report.summary` of the rest; logits (N, K), labels (N,) in the model's class indices.

    `fitted_on` is the split that `temperature` was fitted on for the figures alone: the model is served at 1 then, and
    else with `temperature`. `pixels` gives image `index` of the split as the network saw it, uint8 (H, W, C).
    """

    figures: dict[str, Any]
    logits: Logits
    labels: Labels
    classes: tuple[str, ...]
    temperature: float
    fitted_on: str | None = None
    pixels: Callable[[int], npt.NDArray[np.uint8]]


def write(folder: Path, evaluation: Evaluation, *, about: dict[str, Any], between: Callable[[], None]) -> None:
    """report.json, per_class.csv, confusion.csv and the drawings. `about` says in the report of what it is.

    `between` is called between two of them that take long; what it raises ends the writing.
    """
    figures, temperature = evaluation.figures, evaluation.temperature
    served = temperature if evaluation.fitted_on is None else 1.0
    worst = report.worst_mistakes(evaluation.logits, evaluation.labels, evaluation.classes, served)
    calibrated = metrics.confidence_bins(evaluation.logits, evaluation.labels, temperature)
    plain = metrics.confidence_bins(evaluation.logits, evaluation.labels)
    document = {
        **about,
        "classes": evaluation.classes,
        "metrics": figures,
        "reliability": report.reliability(calibrated),
        "reliability_uncalibrated": report.reliability(plain),
        "worst_mistakes": worst,
    }
    write_atomic(folder / "report.json", as_json(document))
    write_atomic(folder / "per_class.csv", as_csv(figures["per_class"]))
    between()
    _write_confusion(folder / "confusion.csv", evaluation)
    occurring = np.union1d(evaluation.labels, evaluation.logits.argmax(axis=1))
    if len(occurring) <= _DRAWN_CLASSES:
        between()
        draw(folder, "confusion", lambda: _drawn_confusion(evaluation, occurring))
    between()
    draw(
        folder,
        "reliability",
        lambda: reliability.reliability(
            calibrated,
            ece=figures["ece"],
            uncalibrated=plain,
            ece_uncalibrated=figures["ece_uncalibrated"],
            fitted_on=evaluation.fitted_on,
        ),
    )
    between()
    draw(folder, "mistakes", lambda: mistakes.mistakes([evaluation.pixels(each["index"]) for each in worst], worst))


def _drawn_confusion(evaluation: Evaluation, occurring: Labels) -> Figure:
    """Of the classes `occurring` (ascending), true or predicted: a few of a thousand are readable by themselves."""
    predicted, true = (np.searchsorted(occurring, each) for each in (evaluation.logits.argmax(1), evaluation.labels))
    rows = metrics.confusion(predicted, true, len(occurring))
    return confusion.confusion([row.tolist() for row in rows], [evaluation.classes[i] for i in occurring])


def _write_confusion(path: Path, evaluation: Evaluation) -> None:
    """The confusion matrix of any number of classes: a line for each true class, a column for each predicted one.

    Line by line, into a folder that is not published yet: of thousands of classes it is large.
    """
    classes = evaluation.classes
    rows = metrics.confusion(evaluation.logits.argmax(axis=1), evaluation.labels, len(classes))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["true", *classes])
        writer.writerows([label, *counts.tolist()] for label, counts in zip(classes, rows, strict=True))


def as_json(document: dict[str, Any]) -> bytes:
    """Indented; NumPy values are allowed, and what is no finite number becomes null."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    """RFC 4180 with a header line, in UTF-8; the columns are the first row's keys. Raises ValueError for others."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()
