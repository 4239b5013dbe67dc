"""Drawings of a training and of an evaluation, as functions of their figures."""

import io
import math
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from worker.figures import canvas
from worker.figures.confusion import confusion
from worker.figures.curves import curves, labelled
from worker.figures.files import draw
from worker.figures.learning_rate import learning_rate, sampled_steps
from worker.figures.mistakes import mistakes
from worker.figures.reliability import reliability
from worker.trainer import metrics

LOGITS = np.log(np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4]], dtype=np.float32))
LABELS = np.array([0, 1, 0, 2])
WRONG = {"index": 4, "label": "dog", "predicted": "cat", "probability": 0.987}


def history(count: int) -> list[dict]:
    return [
        {"epoch": i + 1, "train": {"loss": 2 / (i + 2), "top1": 0.5}, "val": {"loss": 3 / (i + 2), "top1": i / 1000}}
        for i in range(count)
    ]


def texts(figure: Figure) -> list[str]:
    """Everything that is written in the drawing."""
    root = ElementTree.fromstring(canvas.svg(figure))
    return ["".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")]


def counts(figure: Figure) -> list[int]:
    return [int(text) for text in texts(figure) if text.isdigit()]


def test_accuracy_is_written_at_its_points_in_percent():
    shown = texts(curves(history(10), kept_epoch=9))
    assert {f"{i / 10:.2f}" for i in range(10)} <= set(shown)
    assert {"training", "validation", "kept: epoch 9"} <= set(shown)


def test_with_nothing_to_validate_on_the_accuracy_in_training_is_what_is_written():
    epochs = [
        {**entry, "train": {"loss": 1.0, "top1": 0.5 + i / 1000}, "val": None} for i, entry in enumerate(history(4))
    ]
    shown = texts(curves(epochs, kept_epoch=4))
    assert {"50.00", "50.10", "50.20", "50.30", "training", "kept: epoch 4"} <= set(shown)
    assert "validation" not in shown


@given(st.lists(st.floats(0, 1), min_size=1, max_size=400), st.integers(8, 20))
def test_of_many_points_the_first_the_best_and_the_last_are_labelled_and_never_too_many(values, most):
    chosen = labelled(values, most=most)
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= most
    assert {0, len(values) - 1} <= set(chosen)
    assert max(values) in [values[i] for i in chosen]
    if len(values) <= most:
        assert chosen == list(range(len(values)))


@pytest.mark.parametrize("count", [13, 40, 90, 300])
def test_of_more_than_twelve_epochs_those_in_equal_steps_are_labelled_in_the_drawing(count):
    """No stretch of the curve is without a number: the steps are those that twelve numbers allow."""
    epochs = history(count)
    for i, entry in enumerate(epochs):
        entry["val"]["top1"] = (i if i < count * 2 // 3 else count // 3) / 1000  # the best lies within, the last below
    chosen = labelled([entry["val"]["top1"] for entry in epochs], most=12)
    figure = curves(epochs, kept_epoch=None)
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert shown == [f"{epochs[i]['val']['top1'] * 100:.2f}" for i in chosen]
    assert {0, count * 2 // 3 - 1, count - 1} <= set(chosen)
    assert len(chosen) <= 12
    assert max(after - before for before, after in pairwise(chosen)) <= 2 * math.ceil(count / 9)


def test_a_confusion_matrix_shows_its_counts_and_names():
    drawing = confusion([[7, 2], [0, 5]], ("cat", "dog"))
    assert sorted(counts(drawing)) == [2, 5, 7]
    assert texts(drawing).count("cat") == 2


def test_many_classes_are_drawn_as_pixels_in_a_bounded_size():
    drawing = canvas.svg(confusion(np.ones((200, 200), dtype=int).tolist(), [f"class {i}" for i in range(200)]))
    assert b"<image" in drawing
    assert b"class 7" not in drawing
    assert len(drawing) < 500_000


@settings(max_examples=8, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=40), min_size=2, max_size=4, unique=True))
def test_a_drawing_is_well_formed_whatever_the_classes_are_called(names):
    figure = confusion(np.eye(len(names), dtype=int).tolist(), names)
    assert counts(figure).count(1) >= len(names)
    assert canvas.png(figure).startswith(b"\x89PNG")


def test_a_reliability_diagram_tells_both_calibration_errors_and_has_a_bar_for_each_bin_that_is_not_empty():
    served, plain = metrics.confidence_bins(LOGITS, LABELS, 2.0), metrics.confidence_bins(LOGITS, LABELS)
    figure = reliability(served, ece=0.1234, uncalibrated=plain, ece_uncalibrated=0.4)
    assert len(figure.axes[0].patches) == np.count_nonzero(served.images)
    assert any("0.1234" in text and "0.4000" in text for text in texts(figure))
    other = reliability(served, ece=0.1234, uncalibrated=plain, ece_uncalibrated=0.4, fitted_on="train")
    titles = [next(text for text in texts(each) if text.startswith("Bars")) for each in (figure, other)]
    assert ["Bars: as served" in title for title in titles] == [True, False]
    assert "temperature of train" in titles[1]


@pytest.mark.parametrize("channels", [1, 3])
def test_mistakes_are_shown_with_what_they_were_taken_for(channels):
    image = np.full((9, 7, channels), 200, dtype=np.uint8)
    figure = mistakes([image] * 7, [WRONG] * 7)
    assert sum("cat (98.7%)" in text for text in texts(figure)) == 7
    assert canvas.svg(figure).count(b"<image") == 7
    assert any("every answer was right" in text for text in texts(mistakes([], [])))


@given(st.integers(1, 10**7))
def test_a_long_plan_is_sampled_from_its_first_step_to_its_last(total):
    steps = sampled_steps(total)
    assert (steps[0], steps[-1]) == (0, total - 1)
    assert len(steps) == len(set(steps)) == min(total, 1000)


def test_the_same_figures_give_the_same_bytes():
    def drawn() -> tuple[bytes, bytes]:
        figure = learning_rate(range(40), [1 - i / 40 for i in range(40)], steps_per_epoch=4, ended=30)
        assert "ended: step 30" in texts(figure)
        return canvas.svg(figure), canvas.png(figure)

    assert drawn() == drawn()
    assert Image.open(io.BytesIO(drawn()[1])).size == (960, 384)


def test_a_drawing_that_fails_is_a_warning_and_leaves_nothing(tmp_path, capfdbinary):
    draw(tmp_path, "curves", lambda: curves([{"epoch": 1}], kept_epoch=1))
    assert b'"not_drawn"' in capfdbinary.readouterr().out
    assert list(tmp_path.iterdir()) == []
    draw(tmp_path, "curves", lambda: curves(history(1), kept_epoch=1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "curves.svg"]
