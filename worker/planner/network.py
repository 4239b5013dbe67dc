"""What a network costs, counted without computing anything."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.manifest import NetworkSpec
from models.networks import registry


def count(spec: NetworkSpec, *, size: int) -> tuple[int, int]:
    """Parameters, and FLOPs of one image's forward pass at `size` × `size` pixels: two for each multiply-accumulate of
    convolutions and matrix products. On torch's meta device, which has shapes and no memory.
    """
    with torch.device("meta"):
        network = registry.build(spec).eval()
        image = torch.empty(1, spec.in_channels, size, size)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(image)
    return sum(parameter.numel() for parameter in network.parameters()), int(counter.get_total_flops())
