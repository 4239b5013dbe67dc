"""The optimizer, its learning rate as a pure function of the step, and its state as tensors for a checkpoint."""

import math

import torch
from torch import Tensor, nn

from models.recipes import Recipe


def build(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Weights decay; biases and normalisation do not. Torch has no LAMB; its Muon takes no convolution's weights."""
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999))
    return torch.optim.SGD(
        groups,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.optimizer == "nesterov" and recipe.momentum > 0,
    )


def learning_rate(recipe: Recipe, *, step: int, steps_per_epoch: int) -> float:
    """The learning rate of step 0, 1, …: a line up over the warm-up, then the schedule.

    `one_cycle` is the triangle of Smith and Topin 2017: after the warm-up, a line down to zero.
    """
    warmup = recipe.warmup_epochs * steps_per_epoch
    total = recipe.epochs * steps_per_epoch
    at = step + 0.5  # the middle of the step: neither its first nor its last learns nothing
    if at < warmup:
        return recipe.lr * at / warmup
    if recipe.schedule == "constant":
        return recipe.lr
    if recipe.schedule == "step":
        return recipe.lr * recipe.step_factor ** sum(at >= epochs * steps_per_epoch for epochs in recipe.step_epochs)
    done = (at - warmup) / (total - warmup)
    return recipe.lr * (1 - done if recipe.schedule == "one_cycle" else (1 + math.cos(math.pi * done)) / 2)


def state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every tensor that the optimizer keeps, named by the parameter's number."""
    kept: dict[int, dict[str, object]] = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": value
        for number, values in kept.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def restore(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """What `state` gave, each tensor laid out in memory like its parameter: a step's loops run side by side."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    whole = optimizer.state_dict()
    kept: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        kept.setdefault(int(number), {})[key] = _laid_out(tensor, parameters[int(number)])
    whole["state"] = kept
    optimizer.load_state_dict(whole)


def _laid_out(tensor: Tensor, parameter: Tensor) -> Tensor:
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype, device="cpu", requires_grad=False).copy_(tensor)
