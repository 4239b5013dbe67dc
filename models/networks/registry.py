"""Every network that can be trained and served, by name. Imports torch only when a network is built."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from torch import nn

    from models.manifest import NetworkSpec


class UnknownNetworkError(ValueError):
    """No network has this name; the message names the nearest one."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A network of the registry.

    `factory` is `module:function`; the function takes `num_classes` and `in_channels`. `input` is the (channels, size)
    that the source uses; `fixed_size` says that no other height and width fit. `parameters` counts the weights of the
    network built for `input` and ten classes.
    """

    name: str
    factory: str
    source: str
    input: tuple[int, int]
    fixed_size: bool
    parameters: int
    description: str

    def build(self, *, num_classes: int, in_channels: int) -> nn.Module:
        """The network with fresh weights, drawn from torch's global generator."""
        module, _, function = self.factory.partition(":")
        return cast("nn.Module", getattr(import_module(module), function)(num_classes, in_channels))


def _cifar(depth: int, parameters: int) -> Entry:
    return Entry(
        name=f"cifar/resnet{depth}",
        factory=f"models.networks.cifar:resnet{depth}",
        source="He et al. 2015, Deep Residual Learning for Image Recognition, section 4.2",
        input=(3, 32),
        fixed_size=False,
        parameters=parameters,
        description=f"6n+2 = {depth} layers of 3×3 convolutions, identity shortcuts, 16, 32 and 64 channels.",
    )


_ENTRIES = (
    _cifar(8, 75_290),
    _cifar(20, 269_722),
    _cifar(32, 464_154),
    _cifar(44, 658_586),
    _cifar(56, 853_018),
    _cifar(110, 1_727_962),
    Entry(
        name="mnist/residual",
        factory="models.networks.mnist:residual",
        source="a small residual network of two convolutions and two blocks, common in MNIST tutorials",
        input=(1, 28),
        fixed_size=True,
        parameters=210_882,
        description="Two convolutions with pooling, a residual block after each, no normalisation; for 28×28.",
    ),
)

NETWORKS: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}


def find(name: str) -> Entry:
    """Raises UnknownNetworkError, which names the nearest network."""
    if name in NETWORKS:
        return NETWORKS[name]
    near = difflib.get_close_matches(name, NETWORKS, n=1, cutoff=0.0)
    raise UnknownNetworkError(f"no network is called {name!r}; the nearest is {near[0]!r}")


def build(spec: NetworkSpec) -> nn.Module:
    """The network that `spec` describes, with fresh weights. Raises UnknownNetworkError."""
    return find(spec.name).build(num_classes=spec.num_classes, in_channels=spec.in_channels)
