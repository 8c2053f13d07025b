"""Re-estimates the statistics of batch norm over a data set, in place of the running averages of training."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lvae_torch.distributed.batch_norm import each_by_itself
from lvae_torch.distributed.place import float64_device, in_float64


def has_statistics(model: nn.Module) -> bool:
    """Whether there is batch norm in ``model`` that keeps statistics."""
    return bool(_norms(model))


@contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    """Restore the batch norm statistics of ``model`` afterwards."""
    buffers = [buffer for norm in _norms(model) for buffer in norm.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, old in zip(buffers, before, strict=True):
            buffer.copy_(old)


@torch.no_grad()
def estimate(
    model: nn.Module,
    passes: Iterable[Callable[[], object]],
    sum_over_ranks: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> None:
    """Set the statistics of ``model`` (in evaluation mode) to the means of the batch statistics over ``passes``.

    Args:
        passes: each runs ``model`` on one batch.
        sum_over_ranks: sums a tensor over the processes that divide the batches among them.
    """
    norms = _norms(model)
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    try:
        with each_by_itself(model):
            _average(norms, passes, sum_over_ranks)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def _average(
    norms: list[_BatchNorm], passes: Iterable[Callable[[], object]], sum_over_ranks: Callable[[Tensor], Tensor]
) -> None:
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    n = 0
    for run in passes:
        n += 1
        for norm in norms:  # the plain mean over all batches; left to PyTorch, the host would read n from each norm
            norm.momentum = 1 / n
        run()
    statistics = [s for norm in norms for s in (norm.running_mean, norm.running_var) if s is not None]
    home = float64_device(statistics[0].device)
    count = torch.ones(1, dtype=torch.float64, device=home)
    own = torch.cat([count, *(in_float64(statistic.flatten()) for statistic in statistics)]) * n
    count, *sums = sum_over_ranks(own).split([1, *(statistic.numel() for statistic in statistics)])
    for statistic, total in zip(statistics, sums, strict=True):
        mean = torch.where(count > 0, total / count, statistic.to(home))
        statistic.copy_(mean.to(statistic.dtype))


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
