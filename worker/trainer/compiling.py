"""The network through torch.compile, and as it is where that does not work: then a warning says so, and why."""

import os
import shutil
import traceback
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch._functorch import config as autograd_config

from worker.job_process import emit

Forward = Callable[[Tensor], Tensor]


class Compiled:
    """Computes through the compiler, and from its first failure on without.

    It compiles the whole forward pass as one, and the backward pass with it: where it fails, nothing has begun, and no
    statistic of the normalisation has moved.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        autograd_config.force_non_lazy_backward_lowering = True
        self._forward: Forward = torch.compile(network, fullgraph=True)

    def __call__(self, inputs: Tensor) -> Tensor:
        try:
            return self._forward(inputs)
        except TorchDynamoException as error:
            traceback.print_exc()  # the claim's stderr.log has the whole of it
            _warn("not_compiled", f"torch.compile failed ({_reason(error)}); training goes on uncompiled")
            self._forward = self._network
        uncompiled: Tensor = self._network(inputs)
        return uncompiled


def compiled(network: nn.Module) -> Forward:
    """What computes the logits of `network`: compiled, where there is a compiler and as long as it does not fail."""
    compiler = os.environ.get("CXX", "g++")  # as torch looks for it
    if shutil.which(compiler) is None:
        _warn("no_compiler", f"the C++ compiler {compiler} was not found; training goes on uncompiled")
        return network
    return Compiled(network)


def _reason(error: TorchDynamoException) -> str:
    """The kind and the first line of what went wrong, without torch's words around it."""
    cause = getattr(error, "inner_exception", error)
    first = str(cause).strip().partition("\n")[0]
    return f"{type(cause).__name__}: {first}" if first else type(cause).__name__


def _warn(code: str, message: str) -> None:
    emit("warning", {"code": code, "message": message})
