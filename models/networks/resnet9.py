"""ResNet-9, the residual network of Page 2018, «How to Train Your ResNet»: few wide layers, for speed on a GPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LOGIT_SCALE = 0.125  # the source's; without it the first steps at a high learning rate go astray


class Convolution(nn.Module):
    """A 3×3 convolution, normalisation and ReLU: (N, I, H, W) → (N, C, H, W)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Residual(nn.Module):
    """Two such convolutions around an identity shortcut; the shape (N, C, H, W) stays."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Convolution(channels, channels)
        self.conv2 = Convolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(self.conv1(x))
        return out


class ResNet9(nn.Module):
    """Logits (N, num_classes) from images (N, in_channels, H, W) of 8×8 or more; made for 3×32×32.

    64, 128, 256 and 512 channels, halved by max-pooling; a residual block at 128 and at 512; global max-pooling.
    """

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = Convolution(in_channels, 64)
        self.layer1 = nn.Sequential(Convolution(64, 128), nn.MaxPool2d(2), Residual(128))
        self.layer2 = nn.Sequential(Convolution(128, 256), nn.MaxPool2d(2))
        self.layer3 = nn.Sequential(Convolution(256, 512), nn.MaxPool2d(2), Residual(512))
        self.fc = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        logits: Tensor = self.fc(_LOGIT_SCALE * torch.amax(x, dim=(2, 3)))
        return logits


def resnet9(num_classes: int, in_channels: int) -> ResNet9:
    return ResNet9(num_classes=num_classes, in_channels=in_channels)
