import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.recipes import resolve
from worker.trainer.loss import Targets, class_weights, cross_entropy

LOGITS, LABELS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 0])


def test_balanced_weights_give_every_class_the_same_say():
    labels = np.array([0] * 8 + [1] * 2)
    weights = class_weights(resolve("mnist", {"class_weights": "balanced"}), labels, 2)
    assert weights.tolist() == [0.625, 2.5]
    assert class_weights(resolve("mnist", {}), labels, 2) is None


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_labels_that_are_wholly_ones_own_give_the_plain_loss(weights):
    whole = Targets(labels=LABELS, partners=LABELS.roll(1), kept=torch.ones(6))
    plain = cross_entropy(LOGITS, Targets(labels=LABELS), smoothing=0.1, weights=weights)
    mixed = cross_entropy(LOGITS, whole, smoothing=0.1, weights=weights)
    assert mixed == pytest.approx(plain.item(), rel=1e-5)


@pytest.mark.parametrize("counts", [[30, 1], [9, 9, 9, 9, 9, 9, 9, 9, 9, 0]])
def test_smoothing_draws_no_image_to_a_rare_class_or_to_one_that_no_image_has(counts: list[int]):
    """The logits that are best for one image say its own class, most surely."""
    weights = class_weights(
        resolve("mnist", {"class_weights": "balanced"}), np.repeat(np.arange(len(counts)), counts), len(counts)
    )
    logits = torch.zeros(1, len(counts), requires_grad=True)
    search = torch.optim.LBFGS([logits], line_search_fn="strong_wolfe", max_iter=100)

    def loss() -> torch.Tensor:
        search.zero_grad()
        value = cross_entropy(logits, Targets(labels=torch.tensor([0])), smoothing=0.1, weights=weights)
        value.backward()
        return value

    search.step(loss)
    assert logits.softmax(1)[0, 0].item() == pytest.approx(0.9 + 0.1 / len(counts), abs=1e-3)


def test_a_mixed_loss_is_that_of_the_mixed_distribution():
    kept = torch.tensor([1.0, 0.7, 0.5, 0.2, 0.0, 0.9])
    target = kept[:, None] * F.one_hot(LABELS, 3) + (1 - kept[:, None]) * F.one_hot(LABELS.roll(1), 3)
    expected = F.cross_entropy(LOGITS, target)
    targets = Targets(labels=LABELS, partners=LABELS.roll(1), kept=kept)
    assert cross_entropy(LOGITS, targets, smoothing=0.0, weights=None) == pytest.approx(expected.item())
