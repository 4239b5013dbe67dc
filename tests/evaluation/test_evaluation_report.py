"""Figures of an evaluation, as functions of logits and labels."""

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from models.classes import ClassesDiffer, class_map, map_into
from worker.evaluator import documents, report
from worker.trainer import metrics

LOGITS = np.log(np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4]], dtype=np.float32))
LABELS = np.array([0, 1, 0, 2])
SVG = "http://www.w3.org/2000/svg"


def test_the_brier_score_is_the_squared_distance_to_the_truth():
    rows = [0.04 + 0.01 + 0.01, 0.36 + 0.49 + 0.01, 0.64 + 0.49 + 0.01, 0.09 + 0.09 + 0.36]
    assert metrics.brier(LOGITS, LABELS) == pytest.approx(np.mean(rows), rel=1e-5)
    sure = np.array([[50.0, 0.0], [50.0, 0.0]], dtype=np.float32)
    assert metrics.brier(sure, np.array([0, 1])) == pytest.approx(1.0)


def test_confidence_bins_hold_every_image_once_and_give_the_calibration_error():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(500, 4)).astype(np.float32) * 3
    labels = generator.integers(0, 4, 500)
    bins = metrics.confidence_bins(logits, labels, 1.7)
    assert len(bins.images) == 15
    assert bins.images.sum() == 500
    gaps = [abs(right - sure) for right, sure in zip(bins.correct, bins.confidence, strict=True)]
    assert metrics.ece(logits, labels, 1.7) == pytest.approx(sum(gaps) / 500)
    rows = report.reliability(bins)
    assert all(row["from"] <= row["confidence"] <= row["to"] for row in rows if row["images"])
    assert all(row["confidence"] is row["accuracy"] is None for row in rows if not row["images"])


def test_the_worst_mistakes_are_the_surest_wrong_answers():
    worst = report.worst_mistakes(LOGITS, LABELS, ("a", "b", "c"), 1.0)
    assert [(each["index"], each["label"], each["predicted"]) for each in worst] == [(2, "a", "b"), (1, "b", "a")]
    assert worst[0]["probability"] == pytest.approx(0.7, rel=1e-5)
    assert worst[0]["probability_of_label"] == pytest.approx(0.2, rel=1e-5)


def test_the_five_best_say_nothing_of_fewer_than_five_classes():
    assert report.summary(LOGITS, LABELS, ("a", "b", "c"), 1.0)["top5"] is None


def test_classes_fit_by_name_in_whatever_order():
    assert class_map(("a", "b", "c"), ("c", "a", "b")) == (2, 0, 1)


def test_classes_that_differ_are_named_and_long_lists_are_cut():
    with pytest.raises(ClassesDiffer, match="the dataset alone has 'd'; the model alone has 'b', 'c'"):
        class_map(("a", "b", "c"), ("a", "d"))
    with pytest.raises(ClassesDiffer, match=r"'11' and 88 more$"):
        class_map([str(i) for i in range(100)], ("0", "1"))


def test_a_dataset_to_evaluate_on_may_lack_classes_of_the_model_and_has_none_besides():
    assert map_into(("a", "b", "c"), ("c", "a")) == (2, 0)
    with pytest.raises(ClassesDiffer, match="the dataset alone has 'd'; the model alone has 'b'") as differ:
        map_into(("a", "b", "c"), ("d", "c", "a"))
    assert "Rename" in differ.value.hint
    with pytest.raises(ClassesDiffer):
        class_map(("a", "b", "c"), ("c", "a"))  # a last layer of three is not one of two


def test_figures_on_some_of_the_models_classes_count_all_of_them():
    """An answer that is none of the dataset's classes is wrong, and a class without images has zeros."""
    labels = np.array([0, 1, 0, 1])
    figures = report.summary(LOGITS, labels, ("a", "b", "c"), 1.0)
    chances = np.exp(LOGITS)
    assert figures["log_loss"] == pytest.approx(-np.log(chances[np.arange(4), labels]).mean(), rel=1e-5)
    assert figures["brier"] == pytest.approx(((chances - np.eye(3)[labels]) ** 2).sum(1).mean(), rel=1e-5)
    assert figures["ece"] == pytest.approx((abs(0.8 - 1) + 0.6 + 0.7 + 0.4) / 4, rel=1e-5)
    assert (figures["correct"], figures["total"]) == (1, 4)
    assert figures["confusion"] == [[1, 1, 0], [1, 0, 1], [0, 0, 0]]
    zero = {"precision": 0, "recall": 0, "f1": 0}
    assert figures["per_class"] == [
        {"label": "a", "precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2},
        {"label": "b", **zero, "support": 2},
        {"label": "c", **zero, "support": 0},
    ]


def test_a_model_is_taken_to_have_learned_from_images_where_chance_does_not_explain_its_answers():
    assert report.seems_learned(right=1990, of=2000, elsewhere=9300, of_elsewhere=10_000)
    assert not report.seems_learned(right=1870, of=2000, elsewhere=9300, of_elsewhere=10_000)
    assert not report.seems_learned(right=1700, of=2000, elsewhere=9300, of_elsewhere=10_000)
    assert not report.seems_learned(right=9, of=9, elsewhere=930, of_elsewhere=1000)
    assert not report.seems_learned(right=2000, of=2000, elsewhere=1000, of_elsewhere=1000)


def test_a_table_is_csv_with_a_header():
    rows = [{"label": 'a "b", c', "support": 3}, {"label": "d", "support": 0}]
    assert documents.as_csv(rows) == b'label,support\r\n"a ""b"", c",3\r\nd,0\r\n'


def written(folder: Path, classes: tuple[str, ...], logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    figures = report.summary(logits, labels, classes, 1.0)
    evaluation = documents.Evaluation(
        figures=figures,
        logits=logits,
        labels=labels,
        classes=classes,
        temperature=1.0,
        pixels=lambda index: np.zeros((8, 8, 1), dtype=np.uint8),
    )
    documents.write(folder, evaluation, about={}, between=lambda: None)
    return figures


def test_a_confusion_matrix_of_any_number_of_classes_is_a_file_and_above_200_nothing_else(tmp_path):
    classes = ('a "b", c', "d\ne", *(f"class {i}" for i in range(199)))
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(603, 201)).astype(np.float32)
    labels = np.tile(np.arange(201), 3)
    assert written(tmp_path, classes, logits, labels)["confusion"] is None
    assert json.loads((tmp_path / "report.json").read_text())["metrics"]["confusion"] is None
    assert not list(tmp_path.glob("confusion.[!c]*"))  # no drawing
    with (tmp_path / "confusion.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert (head, [row[0] for row in rows]) == (["true", *classes], list(classes))
    counts = np.array([[int(count) for count in row[1:]] for row in rows])
    expected = np.zeros((201, 201), dtype=int)
    for true, predicted in zip(labels, logits.argmax(1), strict=True):
        expected[true, predicted] += 1
    assert (counts == expected).all()


def test_of_many_classes_those_that_occur_are_drawn(tmp_path):
    classes = tuple(f"class {i}" for i in range(1000))
    labels = np.repeat([17, 500, 999], 4)
    logits = np.zeros((12, 1000), dtype=np.float32)
    logits[np.arange(12), [17, 17, 17, 3, *[500] * 4, *[999] * 3, 17]] = 5
    figures = written(tmp_path, classes, logits, labels)
    drawing = (tmp_path / "confusion.svg").read_text()
    shown = {"".join(each.itertext()).strip() for each in ElementTree.fromstring(drawing).iter(f"{{{SVG}}}text")}
    assert {each for each in shown if each.startswith("class ")} == {f"class {i}" for i in (3, 17, 500, 999)}
    assert {each for each in shown if each.isdigit()} == {"3", "1", "4"}
    assert (figures["confusion"], len(figures["per_class"])) == (None, 1000)
    assert len((tmp_path / "confusion.csv").read_text().splitlines()) == 1001
