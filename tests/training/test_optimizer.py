import pytest
import torch

from models.networks.registry import NETWORKS
from models.recipes import resolve
from worker.trainer.optimizer import build, learning_rate, restore, state


def rates(**overrides: object) -> list[float]:
    recipe = resolve("mnist", {"epochs": 10, "warmup_epochs": 2, "lr": 1.0, **overrides})
    return [learning_rate(recipe, step=step, steps_per_epoch=10) for step in range(100)]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_the_rate_rises_in_a_line_over_the_warmup_then_never_again(schedule: str):
    found = rates(schedule=schedule)
    assert found[:20] == pytest.approx([(step + 0.5) / 20 for step in range(20)])
    assert found[20:] == sorted(found[20:], reverse=True)
    assert found[20] == pytest.approx(1.0, abs=0.01)


def test_the_schedules_are_half_way_down_in_the_middle_and_end_near_zero():
    for schedule in ("cosine", "one_cycle"):
        found = rates(schedule=schedule)
        assert (found[59] + found[60]) / 2 == pytest.approx(0.5)
        assert 0 < found[99] < 0.01
    assert rates(schedule="constant")[99] == 1.0


def test_steps_multiply_the_rate_at_their_epochs():
    found = rates(schedule="step", step_epochs=(5, 8))
    assert [found[49], found[50], found[79], found[80]] == pytest.approx([1.0, 0.1, 0.1, 0.01])


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adamw"])
def test_biases_and_normalisation_do_not_decay(optimizer: str):
    network = NETWORKS["cifar/resnet8"].build(num_classes=10, in_channels=3)
    decayed, free = build(network, resolve("mnist", {"optimizer": optimizer})).param_groups
    assert decayed["weight_decay"] == 5e-4
    assert free["weight_decay"] == 0
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert all("bn" in names[id(p)] or names[id(p)].endswith("bias") for p in free["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(network.parameters()))


def test_nesterov_looks_ahead_where_sgd_does_not():
    moved = {}
    for name in ("sgd", "nesterov"):
        layer = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(layer.weight)
        optimizer = build(layer, resolve("mnist", {"optimizer": name, "lr": 0.1, "weight_decay": 0}))
        layer.weight.grad = torch.ones(1, 1)
        optimizer.step()
        moved[name] = 1 - layer.weight.item()
    assert moved == pytest.approx({"sgd": 0.1, "nesterov": 0.19})


@pytest.mark.parametrize("optimizer", ["nesterov", "adamw"])
def test_what_comes_back_lies_in_memory_as_before(optimizer: str):
    """A checkpoint's tensors are contiguous, and the weights channels last."""
    chosen = resolve("mnist", {"optimizer": optimizer})
    network = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    one, other = build(network, chosen), build(network, chosen)
    network(torch.ones(2, 3, 8, 8)).sum().backward()
    one.step()
    saved = {name: tensor.contiguous() for name, tensor in state(one).items()}
    restore(other, saved)
    for (name, theirs), (_, ours) in zip(state(one).items(), state(other).items(), strict=True):
        assert torch.equal(ours, theirs), name
        assert ours.stride() == theirs.stride(), name
