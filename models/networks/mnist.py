"""A small residual network for 28×28 digits, without normalisation layers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """A 3×3 and a 5×5 convolution around an identity shortcut; the shape (N, C, H, W) stays."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class GatedBlock(nn.Module):
    """A residual block that chooses, for each pixel and channel, between its path and the identity.

    `gate · path + (1 − gate) · x` with gate = sigmoid of a 1×1 convolution of x (as in Srivastava et al. 2015, Highway
    Networks). The shape (N, C, H, W) stays.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 5, padding=2)
        self.gate = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        path = self.conv2(F.relu(self.conv1(x)))
        return F.relu(torch.lerp(x, path, torch.sigmoid(self.gate(x))))


class MnistResidual(nn.Module):
    """Logits (N, num_classes) from images (N, in_channels, 28, 28)."""

    def __init__(self, *, block: type[ResidualBlock] | type[GatedBlock], num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 5)
        self.block1 = block(16)
        self.conv2 = nn.Conv2d(16, 32, 3)
        self.block2 = block(32)
        self.fc1 = nn.Linear(32 * 5 * 5, 200)
        self.fc2 = nn.Linear(200, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block1(F.max_pool2d(F.relu(self.conv1(x)), 2))  # 28 → 24 → 12
        x = self.block2(F.max_pool2d(F.relu(self.conv2(x)), 2))  # 12 → 10 → 5
        logits: Tensor = self.fc2(F.relu(self.fc1(x.flatten(1))))
        return logits


def residual(num_classes: int, in_channels: int) -> MnistResidual:
    return MnistResidual(block=ResidualBlock, num_classes=num_classes, in_channels=in_channels)


def gated(num_classes: int, in_channels: int) -> MnistResidual:
    return MnistResidual(block=GatedBlock, num_classes=num_classes, in_channels=in_channels)
