"""Batch norm whose batch is that of all ranks together. Shapes: B batch, C channels."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


class SharedBatchNorm(_BatchNorm):
    """Normalises by the values of all ranks, as one process with the whole batch would; shares may differ in size.

    The ranks exchange one vector in each pass, and no host reads a value: PyTorch's SyncBatchNorm reads three, so that
    a card's queue runs dry in every layer, and no CUDA graph holds it.
    """

    is_shared = True
    """False where each rank passes batches of its own, and must not wait for the others."""
    _over_ranks: Callable[["SharedBatchNorm", Tensor], Tensor]
    """``_forward_over_ranks``, which takes the norm too: so a copy of a norm passes itself."""

    @classmethod
    def of(cls, norm: _BatchNorm) -> "SharedBatchNorm":
        """The same norm, which has weights and running statistics, over all ranks, with the same tensors."""
        assert norm.affine and norm.track_running_stats, norm
        shared = cls(norm.num_features, norm.eps, norm.momentum)
        for name, tensor in (*norm.named_parameters(), *norm.named_buffers()):
            setattr(shared, name, tensor)
        # The compiler would look into the exchange. Said here, not at the class, this imports it where it is needed.
        shared._over_ranks = torch.compiler.disable(cls._forward_over_ranks)
        return shared.train(norm.training)

    def _check_input_dim(self, x: Tensor) -> None:
        """Any number of dimensions will do: (B, C, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.is_shared):
            return super().forward(x)
        return self._over_ranks(self, x)

    def _forward_over_ranks(self, x: Tensor) -> Tensor:
        mean, variance, n = _moments(x)
        self._follow(mean, variance * (n / (n - 1)))
        y: Tensor = _Normalised.apply(x, self.weight, self.bias, mean, (variance + self.eps).rsqrt(), n)
        return y

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        for running, new in ((self.running_mean, mean), (self.running_var, variance)):
            assert running is not None
            running.lerp_(new.to(running.dtype), self.momentum)


def share_statistics(model: nn.Module) -> None:
    """Let every batch norm inside ``model`` normalise by the values of all ranks; its state keeps its names."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                setattr(parent, name, SharedBatchNorm.of(child))


@contextmanager
def each_by_itself(model: nn.Module) -> Iterator[None]:
    """Inside, ranks do not share statistics: they may pass different numbers of batches through ``model``."""
    norms = [module for module in model.modules() if isinstance(module, SharedBatchNorm)]
    for norm in norms:
        norm.is_shared = False
    try:
        yield
    finally:
        for norm in norms:
            norm.is_shared = True


@torch.no_grad()
def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of each channel of x, (B, C, ...), over all ranks, (C,), and the number of its values, ()."""
    variance, mean = torch.var_mean(x.to(_precise(x)), dim=_but_channels(x), correction=0)
    count = mean.new_full((1,), x.numel() // x.shape[1])
    own = torch.cat([mean, variance, count])
    every = own.new_zeros(dist.get_world_size(), len(own))  # the sums of squares of all ranks would cancel out
    every[dist.get_rank()] = own
    dist.all_reduce(every)
    means, variances, counts = every.split([len(mean), len(mean), 1], dim=1)
    n = counts.sum()
    shares = counts / n
    mean = (shares * means).sum(dim=0)
    return mean, (shares * (variances + (means - mean) ** 2)).sum(dim=0), n


class _Normalised(torch.autograd.Function):
    """(x - mean) / deviation * weight + bias, where mean and deviation are those of x over all ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor, n: Tensor) -> Tensor:
        """``inverse``: 1 / deviation, (C,)."""
        ctx.save_for_backward(x, weight, mean, inverse, n)
        centred = x - _along_channels(mean, x)
        return torch.addcmul(_along_channels(bias, x), centred, _along_channels(inverse * weight, x)).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Of the sum of all ranks' losses with respect to x, and of this rank's with respect to weight and bias."""
        x, weight, mean, inverse, n = ctx.saved_tensors
        gradient, centred = gradient.to(mean.dtype), x - _along_channels(mean, x)
        dims = _but_channels(x)
        own = torch.stack([(gradient * centred).sum(dim=dims) * inverse, gradient.sum(dim=dims)])
        every = own.clone()
        dist.all_reduce(every)
        by_weight, by_bias = (_along_channels(sums, x) for sums in every / n)
        normal = centred.mul_(_along_channels(inverse, x))
        to_x = (gradient - by_bias).addcmul_(normal, by_weight, value=-1).mul_(_along_channels(inverse * weight, x))
        return to_x.to(x.dtype), own[0], own[1], None, None, None


def _precise(x: Tensor) -> torch.dtype:
    """Of sums over half precision."""
    return torch.promote_types(x.dtype, torch.float32)


def _but_channels(x: Tensor) -> tuple[int, ...]:
    return (0, *range(2, x.dim()))


def _along_channels(values: Tensor, x: Tensor) -> Tensor:
    """(C,) -> (C, 1, ...), which broadcasts over x, (B, C, ...)."""
    return values.view(-1, *[1] * (x.dim() - 2))
