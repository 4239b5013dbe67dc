"""ResNet-18 as «Dive into Deep Learning» builds it (Zhang et al., section 8.6): convolutions with bias."""

from torch import Tensor, nn
from torch.nn import functional as F


class Residual(nn.Module):
    """Two 3×3 convolutions and a shortcut: (N, I, H, W) → (N, C, H/stride, W/stride).

    With `project`, the shortcut is a 1×1 convolution; without, input and output must have the same shape.
    """

    def __init__(self, in_channels: int, channels: int, *, project: bool = False, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(in_channels, channels, 1, stride) if project else None

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x if self.conv3 is None else self.conv3(x)
        return F.relu(out + shortcut)


class D2lResNet18(nn.Module):
    """Logits (N, num_classes) from images (N, in_channels, H, W); the book's input is 1×96×96."""

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, 64, 7, stride=2, padding=3),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.stage1 = nn.Sequential(Residual(64, 64), Residual(64, 64))
        self.stage2 = _halving(64, 128)
        self.stage3 = _halving(128, 256)
        self.stage4 = _halving(256, 512)
        self.fc = nn.Linear(512, num_classes)
        for module in self.modules():  # the book's: Xavier's uniform weights
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage4(self.stage3(self.stage2(self.stage1(self.stem(x)))))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def _halving(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(Residual(in_channels, channels, project=True, stride=2), Residual(channels, channels))


def resnet18(num_classes: int, in_channels: int) -> D2lResNet18:
    return D2lResNet18(num_classes=num_classes, in_channels=in_channels)
