"""A frozen backbone: for the recipe's `freeze_epochs` nothing but the last layer learns, then all of them do."""

from torch import nn

from models.recipes import Recipe
from models.runtime import split


def is_frozen(recipe: Recipe, *, step: int, steps_per_epoch: int) -> bool:
    """Of step 0, 1, …; a function of the step alone, so that a resumed run thaws where the first would have."""
    return step < recipe.freeze_epochs * steps_per_epoch


def train_mode(network: nn.Module, *, frozen: bool) -> None:
    """`network.train()`; where `frozen`, all but the last layer is left in evaluation mode and asks for no gradients.

    So normalisation uses the statistics that came with the weights and does not move them, and the optimizer passes
    over what has no gradient: no decay, no momentum, no count of steps, until its first step after the thaw.
    """
    network.train(not frozen)
    for parameter in network.parameters():
        parameter.requires_grad_(not frozen)
    if frozen:
        _, head = split(network)
        head.train()
        for parameter in head.parameters():
            parameter.requires_grad_(True)
