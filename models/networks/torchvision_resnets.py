"""Torchvision's own ImageNet ResNets, by its names; only the input's channels are ours to choose."""

from torch import nn
from torchvision.models import get_model


def build(name: str, num_classes: int, in_channels: int) -> nn.Module:
    """Torchvision's network `name` with fresh weights: logits (N, num_classes) from (N, in_channels, H, W).

    For other than three channels the first convolution is made anew, as torchvision makes its own.
    """
    network: nn.Module = get_model(name, weights=None, num_classes=num_classes)
    if in_channels != 3:
        network.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    return network
