import numpy as np
import pytest

from worker.trainer import metrics


def test_top_k_counts_labels_among_the_k_largest():
    logits = np.array([[3, 2, 1], [1, 3, 2], [2, 1, 3]], dtype=np.float32)
    labels = np.array([0, 2, 1])
    assert [metrics.top_k(logits, labels, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_log_loss_is_the_mean_negative_log_likelihood():
    logits = np.log(np.array([[0.7, 0.3], [0.2, 0.8]], dtype=np.float32))
    assert metrics.log_loss(logits, np.array([0, 0])) == pytest.approx(-(np.log(0.7) + np.log(0.2)) / 2, rel=1e-6)


def test_ece_is_the_gap_between_confidence_and_accuracy():
    """Ten images at confidence 0.9, of which six are right: 0.3."""
    logits = np.tile(np.log(np.array([0.9, 0.1], dtype=np.float32)), (10, 1))
    labels = np.array([0] * 6 + [1] * 4)
    assert metrics.ece(logits, labels) == pytest.approx(0.3, abs=1e-6)


def test_temperature_finds_by_how_much_logits_are_too_sure():
    generator = np.random.default_rng(0)
    honest = generator.normal(size=(20_000, 5)) * 2
    probability = np.exp(metrics.log_softmax(honest))
    labels = (probability.cumsum(1) > generator.random((20_000, 1))).argmax(1)
    logits = (honest * 3).astype(np.float32)
    temperature = metrics.fit_temperature(logits, labels)
    assert temperature == pytest.approx(3, rel=0.05)
    assert metrics.ece(logits, labels, temperature) < 0.02 < metrics.ece(logits, labels)


def test_a_few_images_without_a_mistake_do_not_make_the_model_certain():
    generator = np.random.default_rng(1)
    honest = generator.normal(size=(4_030, 10)).astype(np.float32) * 3
    probability = np.exp(metrics.log_softmax(honest))
    labels = (probability.cumsum(1) > generator.random((4_030, 1))).argmax(1)
    right = np.flatnonzero(honest.argmax(1) == labels)[:30]
    temperature = metrics.fit_temperature(honest[right], labels[right])
    everything = metrics.log_loss(honest, labels)
    assert everything < metrics.log_loss(honest, labels, temperature) < 1.5 * everything


def test_the_confusion_matrix_has_a_row_for_each_true_class_even_one_never_seen():
    labels, predicted = np.array([2, 0, 0, 1, 1, 0]), np.array([1, 0, 1, 1, 0, 0])
    rows = [row.tolist() for row in metrics.confusion(predicted, labels, 4)]
    assert rows == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_precision_recall_f1_and_support_of_each_class():
    labels, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 1])
    a, b, c = metrics.per_class(predicted, labels, ("a", "b", "c"))
    assert a == {"label": "a", "precision": 0.666667, "recall": 0.666667, "f1": 0.666667, "support": 3}
    assert b == {"label": "b", "precision": 0.333333, "recall": 0.5, "f1": 0.4, "support": 2}
    assert c == {"label": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
