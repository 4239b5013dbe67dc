"""Every network that can be trained and served, by name. Imports torch only when a network is built."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

from models.nearest import nearest

if TYPE_CHECKING:
    from torch import nn

    from models.manifest import NetworkSpec


class UnknownNetworkError(ValueError):
    """No network has this name; the message names the nearest one."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A network of the registry.

    `factory` is `module:function`; the function takes `arguments`, `num_classes` and `in_channels`. `input` is the
    (channels, size) that the source uses; `fixed_size` says that no other height and width fit. `parameters` counts
    the weights of the network built for `input` and ten classes. `weights` are torchvision's names of those that it
    can start from. `trains_alone` is the smallest size at which a batch of one image trains it, 0 = any: below it, the
    last maps are one pixel, and batch normalisation finds no variance in one value.
    """

    name: str
    factory: str
    arguments: tuple[str, ...] = ()
    source: str
    input: tuple[int, int]
    fixed_size: bool
    parameters: int
    description: str
    weights: tuple[str, ...] = ()
    trains_alone: int = 0

    def build(self, *, num_classes: int, in_channels: int) -> nn.Module:
        """The network with fresh weights, drawn from torch's global generator."""
        module, _, function = self.factory.partition(":")
        return cast("nn.Module", getattr(import_module(module), function)(*self.arguments, num_classes, in_channels))


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


def _resnet(depth: int, parameters: int) -> Entry:
    block = "two 3×3 convolutions" if depth < 50 else "bottlenecks of 1×1, 3×3 and 1×1 convolutions"
    return Entry(
        name=f"cifar/resnet{depth}",
        factory=f"models.networks.resnet:resnet{depth}",
        source="He et al. 2015, Deep Residual Learning for Image Recognition, table 1, with a stem for small images",
        input=(3, 32),
        fixed_size=False,
        parameters=parameters,
        description=f"{depth} layers of {block}; 3×3 stem without pooling; 64 to 512 channels.",
        trains_alone=9,
    )


def _torchvision(name: str, parameters: int, *weights: str) -> Entry:
    return Entry(
        name=f"torchvision/{name}",
        factory="models.networks.torchvision_resnets:build",
        arguments=(name,),
        source=f"torchvision.models.{name}",
        input=(3, 224),
        fixed_size=False,
        parameters=parameters,
        description="Torchvision's own class: 7×7 stem with pooling, made for ImageNet's 224×224.",
        weights=tuple(f"IMAGENET1K_{version}" for version in weights),
        trains_alone=33,
    )


_ENTRIES = (
    Entry(
        name="d2l/resnet18",
        factory="models.networks.d2l:resnet18",
        source="Zhang et al., Dive into Deep Learning, section 8.6",
        input=(1, 96),
        fixed_size=False,
        parameters=11_178_378,
        description="ResNet-18 with biased convolutions, 7×7 stem with pooling, 1×1 shortcuts where the shape changes.",
        trains_alone=33,
    ),
    _resnet(18, 11_173_962),
    _resnet(34, 21_282_122),
    _resnet(50, 23_520_842),
    _resnet(101, 42_512_970),
    _resnet(152, 58_156_618),
    Entry(
        name="cifar/resnet9",
        factory="models.networks.resnet9:resnet9",
        source="Page 2018, How to Train Your ResNet",
        input=(3, 32),
        fixed_size=False,
        parameters=6_573_130,
        description="9 wide layers of 3×3 convolutions, two residual blocks, max-pooling: fast on a GPU.",
        trains_alone=16,
    ),
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
    Entry(
        name="mnist/gated",
        factory="models.networks.mnist:gated",
        source="mnist/residual with the gates of Srivastava et al. 2015, Highway Networks",
        input=(1, 28),
        fixed_size=True,
        parameters=212_210,
        description="mnist/residual in which a sigmoid of a 1×1 convolution mixes each block's path and identity.",
    ),
    _torchvision("resnet18", 11_181_642, "V1"),
    _torchvision("resnet34", 21_289_802, "V1"),
    _torchvision("resnet50", 23_528_522, "V1", "V2"),
    _torchvision("resnet101", 42_520_650, "V1", "V2"),
    _torchvision("resnet152", 58_164_298, "V1", "V2"),
    _torchvision("resnext50_32x4d", 23_000_394, "V1", "V2"),
    _torchvision("resnext101_32x8d", 86_762_826, "V1", "V2"),
    _torchvision("resnext101_64x4d", 81_426_762, "V1"),
    _torchvision("wide_resnet50_2", 66_854_730, "V1", "V2"),
    _torchvision("wide_resnet101_2", 124_858_186, "V1", "V2"),
)

NETWORKS: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}


def find(name: str) -> Entry:
    """Raises UnknownNetworkError, which names the nearest network."""
    if name in NETWORKS:
        return NETWORKS[name]
    raise UnknownNetworkError(f"no network is called {name!r}; the nearest is {nearest(name, NETWORKS)!r}")


def build(spec: NetworkSpec) -> nn.Module:
    """The network that `spec` describes, with fresh weights. Raises UnknownNetworkError."""
    return find(spec.name).build(num_classes=spec.num_classes, in_channels=spec.in_channels)
