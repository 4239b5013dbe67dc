"""A model's network as one module from bytes to outputs, in the forms that runtimes take."""

import copy
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.runtime import Runtime


class Network(nn.Module):
    """Images uint8 (N, H, W, C) → logits float32 (N, K) and embedding float32 (N, D).

    Normalisation is computed in float32 whatever the network's own type, so that no precision is lost before it starts.
    """

    def __init__(self, reference: Runtime, *, folded: bool, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        body, head = reference.body_and_head
        self.body = (fold(body) if folded else copy.deepcopy(body)).to(dtype)
        self.head = copy.deepcopy(head).to(dtype)
        self.dtype = dtype
        self.register_buffer("scale", reference.normalise.scale.clone())
        self.register_buffer("shift", reference.normalise.shift.clone())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        scaled = torch.addcmul(self.get_buffer("shift"), images.to(torch.float32), self.get_buffer("scale"))
        embedding = self.body(scaled.permute(0, 3, 1, 2).to(self.dtype))
        return self.head(embedding).to(torch.float32), embedding.to(torch.float32)


class _Tracer(fx.Tracer):
    """Traces what its own thread calls.

    While one traces, torch sends it the call of every module in the process: others may be serving.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - what the module gives, or stands for it
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


def fold(network: nn.Module) -> nn.Module:
    """A copy in which each convolution has the normalisation behind it in its own weights: the same function.

    A network whose code cannot be traced is copied as it is.
    """
    whole = copy.deepcopy(network).eval()
    try:
        traced = fx.GraphModule(whole, _Tracer().trace(whole))
    except Exception:  # tracing runs the network's own code, which may raise anything
        return whole
    modules = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        before = node.args[0]
        alone = (
            before.op == "call_module" and len(before.users) == 1 and calls[before.target] == calls[node.target] == 1
        )
        if alone and isinstance(modules[before.target], nn.Conv2d):
            traced.set_submodule(before.target, fuse_conv_bn_eval(modules[before.target], modules[node.target]))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced
