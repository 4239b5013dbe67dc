"""PyTorch on a CPU: the network as it is, or with folded normalisation, in float32 or bfloat16."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.engine.runtimes.base import Compute, Loaded, Numbers
from app.engine.runtimes.network import Network
from app.engine.runtimes.threads import use_threads
from models.runtime import Outputs, Runtime


def eager(reference: Runtime, *, cores: int) -> Loaded:
    """The reference itself."""
    return divided(reference.outputs, cores=cores if reference.device.type == "cpu" else 1)


def folded(reference: Runtime, *, numbers: Numbers, cores: int) -> Loaded:
    dtype = torch.bfloat16 if numbers is Numbers.BF16 else torch.float32
    network = Network(reference, folded=True, dtype=dtype).to(memory_format=torch.channels_last)
    return divided(called(network, reference.device), cores=cores if reference.device.type == "cpu" else 1)


def called(network: Callable[[Tensor], Any], device: torch.device) -> Compute:
    """A module from images to (logits, embedding) as a runtime's function."""

    @torch.inference_mode()
    def compute(images: npt.NDArray[np.uint8]) -> Outputs:
        logits, embedding = network(torch.from_numpy(np.ascontiguousarray(images)).to(device))
        return Outputs(logits=logits.cpu().numpy(), embedding=embedding.cpu().numpy())

    return compute


def divided(compute: Compute, *, cores: int) -> Loaded:
    """The same function for all cores and for one: how many it takes is a property of the thread that calls it."""

    def wide(images: npt.NDArray[np.uint8]) -> Outputs:
        use_threads(cores)
        return compute(images)

    def narrow(images: npt.NDArray[np.uint8]) -> Outputs:
        use_threads(1)
        return compute(images)

    return Loaded(wide=wide, narrow=narrow, streams=cores) if cores > 1 else Loaded(wide=wide)
