"""One training step: the norm that its gradient is cut to, and the average that follows the weights."""

from collections.abc import Iterator

import pytest
import torch
from squares import CLASSES, squares
from torch import Tensor

from models.manifest import NetworkSpec, Preprocessing
from models.recipes import resolve
from worker.trainer import augment, mixing
from worker.trainer.data import TrainingData
from worker.trainer.distributed import World
from worker.trainer.fresh import fresh_state
from worker.trainer.pixels import Images
from worker.trainer.state import RunState
from worker.trainer.steps import Steps

CPU = torch.device("cpu")
SIZE, BATCH = 12, 8
SMALL = {"image_size": SIZE, "batch_size": BATCH, "precision": "fp32", "warmup_epochs": 0, "lr": 0.1}


def stepped(count: int, **overrides: object) -> Iterator[RunState]:
    """A run's state before its first step and after each of `count` steps, the step's gradient still with it."""
    recipe = resolve("fashion-mnist-small", {**SMALL, **overrides})
    spec = NetworkSpec(name=recipe.network, num_classes=len(CLASSES), in_channels=1)
    state = fresh_state(spec, recipe, CPU, World())
    pixels, labels = squares(BATCH * count, seed=0, size=SIZE)
    images = Images(pixels=pixels, labels=labels)
    shape = Preprocessing(channels=1, height=SIZE, width=SIZE, resize=SIZE, mean=(0.2,), std=(0.2,))
    data = TrainingData(train=images, val=images, preprocessing=shape)
    steps = Steps(recipe=recipe, data=data, classes=len(CLASSES), state=state, device=CPU, world=World())
    yield state
    with steps.epoch(recipe) as step:
        for _ in range(count):
            step(recipe)
            yield state


def gradient(**overrides: object) -> Tensor:
    """Of all parameters, one behind the other, as the first step applied it."""
    *_, state = stepped(1, **overrides)
    return torch.cat([each.grad.flatten() for each in state.network.parameters() if each.grad is not None])


def norm(values: Tensor) -> float:
    return float(values.double().square().sum().sqrt())


@pytest.mark.parametrize("parts", [1, 2])
def test_a_larger_gradient_is_cut_to_the_norm_that_is_asked_and_keeps_its_direction(parts: int):
    whole = gradient(accumulate=parts)
    asked = norm(whole) / 3
    cut = gradient(accumulate=parts, clip_norm=asked)
    assert norm(cut) == pytest.approx(asked, rel=1e-4)
    assert torch.allclose(cut, whole / 3, rtol=1e-4, atol=1e-7)


def test_a_smaller_gradient_stays_as_it_is():
    whole = gradient()
    assert norm(whole) > 0
    assert torch.equal(gradient(clip_norm=norm(whole) * 1.01), whole)


def test_a_step_goes_along_the_cut_gradient():
    plain = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
    begin, end = (
        torch.cat([each.detach().flatten() for each in state.network.parameters()])
        for state in stepped(1, **plain, clip_norm=0.5)
    )
    assert norm(begin - end) == pytest.approx(0.1 * 0.5, rel=1e-3)  # lr times the norm


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_of_a_mixed_image_a_prediction_is_right_by_the_share_of_its_class(kind: str):
    """Of a network that always says the second class, the partners in that class count as the images themselves do."""
    run = stepped(1, **{kind: 1.0})
    state = next(run)
    last = [module for module in state.network.modules() if isinstance(module, torch.nn.Linear)][-1]
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([0.0, 1.0, 0.0])
    state = next(run)

    recipe = resolve("fashion-mnist-small", {**SMALL, kind: 1.0})
    draws = augment.draw(recipe, samples=BATCH, epoch=0, device=CPU).mix
    assert draws is not None
    kept = mixing.kept(torch.arange(BATCH), draws, height=SIZE, width=SIZE).double()
    labels = torch.from_numpy(squares(BATCH, seed=0, size=SIZE)[1])[augment.order(samples=BATCH, seed=0, epoch=0)]
    own, partners = (labels == 1).double(), (labels.roll(1) == 1).double()
    expected = float((kept * own + (1 - kept) * partners).sum())
    assert expected != float(own.sum())
    assert state.sums.tolist()[1:] == pytest.approx([expected, BATCH])


def test_the_average_is_of_weights_and_statistics_as_it_is_defined():
    """After step t it is d · average + (1 - d) · new, d = min(decay, (1 + t) / (10 + t)): of every weight, and of the
    normalisation's means and variances. How many batches those saw is not averaged.
    """
    expected: dict[str, Tensor] = {}
    decays = (None, 2 / 11, 3 / 12, 0.3, 0.3, 0.3)  # 4 / 13 and what follows are more than 0.3
    for state, decay in zip(stepped(5, ema_decay=0.3), decays, strict=True):
        assert state.average is not None
        for name, new in state.network.state_dict().items():
            if decay is None or not new.is_floating_point():
                expected[name] = new.clone()
            else:
                expected[name] = decay * expected[name].double() + (1 - decay) * new.double()
        average = state.average.state_dict()
        assert average.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.allclose(average[name].double(), value.double(), rtol=1e-5, atol=1e-7), (state.step, name)

    network = state.network.state_dict()
    assert average["bn1.num_batches_tracked"] == network["bn1.num_batches_tracked"] == 5
    for name in ("conv1.weight", "bn1.weight", "bn1.running_mean", "bn1.running_var"):
        assert not torch.allclose(average[name], network[name], rtol=1e-5), name  # it does lag behind
