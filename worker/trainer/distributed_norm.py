"""Batch normalisation over the images of all ranks: torch's own on GPUs, and here for what it lacks, CPUs."""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist


class _Sum(torch.autograd.Function):
    """The sum over all ranks; a gradient of it is a gradient of every rank's term."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:  # noqa: ANN401 - torch's own type is private
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401 - as above
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d of (N, C, H, W) whose training statistics are those of all ranks' images (Ioffe and Szegedy 2015).

    Ranks may have different N. Means and variances are combined as in Chan et al. 1979: no difference of large sums.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.float()
        own = torch.full((1,), x.numel() / x.shape[1], device=x.device)
        own_variance, own_mean = torch.var_mean(wide, dim=(0, 2, 3), correction=0)
        count = own.clone()
        dist.all_reduce(count)
        mean = _summed(own_mean * own) / count
        variance = _summed((own_variance + (own_mean - mean) ** 2) * own) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scale = torch.rsqrt(variance + self.eps) * self.weight
        shift = self.bias - mean * scale
        return torch.addcmul(shift[:, None, None], wide, scale[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        weight = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)


def _summed(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)
    return total


def globally_normalised(network: nn.Module) -> nn.Module:
    """The same network, its parameters and their names, with such layers in place of BatchNorm2d."""
    if any(parameter.is_cuda for parameter in network.parameters()):
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]  # not annotated
        return converted
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, _like(child))
    return network


def _like(layer: nn.BatchNorm2d) -> GlobalBatchNorm2d:
    new = GlobalBatchNorm2d(layer.num_features, layer.eps, layer.momentum)
    new.weight, new.bias = layer.weight, layer.bias
    new.load_state_dict(layer.state_dict())
    return new.train(layer.training)
