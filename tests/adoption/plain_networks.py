"""Residual networks as people write them for CIFAR, with the names that their state dicts usually have."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3×3 convolutions, or a bottleneck; `word` is what its shortcut is called, empty: padded with zeros."""

    def __init__(self, into: int, width: int, stride: int, *, bottleneck: bool, word: str) -> None:
        super().__init__()
        out = width * 4 if bottleneck else width
        if bottleneck:
            self.conv1 = nn.Conv2d(into, width, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
            self.conv3 = nn.Conv2d(width, out, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(out)
        else:
            self.conv1 = nn.Conv2d(into, width, 3, stride=stride, padding=1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.stride, self.grown, self.word = stride, out - into, word
        if word and (stride != 1 or into != out):
            projection = nn.Sequential(nn.Conv2d(into, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))
            self.add_module(word, projection)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if hasattr(self, "conv3"):
            y = self.bn3(self.conv3(F.relu(y)))
        if hasattr(self, self.word or "-"):
            x = getattr(self, self.word)(x)
        elif self.stride != 1 or self.grown:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.grown // 2, self.grown // 2))
        return F.relu(y + x)


class PlainResNet(nn.Module):
    """`depths` blocks a stage; `head` is what the last layer is called."""

    def __init__(
        self, depths: tuple[int, ...], width: int, *, bottleneck: bool, word: str, head: str, classes: int
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        into = width
        for number, depth in enumerate(depths):
            blocks = []
            for index in range(depth):
                wide, stride = width * 2**number, 2 if number and not index else 1
                blocks.append(Block(into, wide, stride, bottleneck=bottleneck, word=word))
                into = wide * 4 if bottleneck else wide
            self.add_module(f"layer{number + 1}", nn.Sequential(*blocks))
        self.stages, self.head = len(depths), head
        self.add_module(head, nn.Linear(into, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for number in range(self.stages):
            x = getattr(self, f"layer{number + 1}")(x)
        logits: Tensor = getattr(self, self.head)(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def trained(network: nn.Module, *, seed: int = 0) -> nn.Module:
    """The network with weights and statistics as a training leaves them: nothing at its first value."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.running_var):
                    assert tensor is not None
                    tensor.copy_(0.5 + torch.rand(tensor.shape, generator=draw))
                for tensor in (module.bias, module.running_mean):
                    assert tensor is not None
                    tensor.copy_(0.1 * torch.randn(tensor.shape, generator=draw))
    return network.eval()
