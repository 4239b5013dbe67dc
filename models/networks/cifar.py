"""The residual networks for small images of He et al. 2015, section 4.2: 6n+2 layers, identity shortcuts (option A)."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut: (N, I, H, W) → (N, O, H/stride, W/stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.new_channels = out_channels - in_channels

    def shortcut(self, x: Tensor) -> Tensor:
        """Option A: no parameters; take every second pixel, fill the new channels with zeros on both sides."""
        if self.stride == 1 and self.new_channels == 0:
            return x
        before = self.new_channels // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.new_channels - before))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """Logits (N, num_classes) from images (N, in_channels, H, W); the paper's input is 3×32×32.

    Three stages of n blocks with 16, 32 and 64 channels, global average pooling, one linear layer.
    """

    def __init__(self, *, n: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.stage1 = _stage(16, 16, n, stride=1)
        self.stage2 = _stage(16, 32, n, stride=2)
        self.stage3 = _stage(32, 64, n, stride=2)
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        logits: Tensor = self.fc(torch.mean(x, dim=(2, 3)))
        return logits


def _stage(in_channels: int, out_channels: int, n: int, *, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1) for _ in range(n - 1)))


def _resnet(depth: int, num_classes: int, in_channels: int) -> CifarResNet:
    return CifarResNet(n=(depth - 2) // 6, num_classes=num_classes, in_channels=in_channels)


resnet8 = partial(_resnet, 8)
resnet20 = partial(_resnet, 20)
resnet32 = partial(_resnet, 32)
resnet44 = partial(_resnet, 44)
resnet56 = partial(_resnet, 56)
resnet110 = partial(_resnet, 110)
