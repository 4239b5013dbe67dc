"""What a run begins with, and its rehearsal in a plan: weights drawn by the seed, until others come in their place."""

import torch

from models.manifest import NetworkSpec
from models.networks import registry
from models.recipes import Recipe
from worker.trainer import optimizer
from worker.trainer.distributed import World
from worker.trainer.state import RunState, averaged_copy


def fresh_state(spec: NetworkSpec, recipe: Recipe, device: torch.device, world: World) -> RunState:
    """At step 0, on the device; in a `world` of several, its normalisation's statistics are those of all of them."""
    torch.manual_seed(recipe.seed)  # of the first weights; nothing later draws from torch
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    network = world.spread(registry.build(spec).to(device)).to(memory_format=layout)
    return RunState(
        network=network,
        optimizer=optimizer.build(network, recipe),
        average=averaged_copy(network) if recipe.ema_decay is not None else None,
        sums=torch.zeros(3, dtype=torch.float64, device=device),
    )
