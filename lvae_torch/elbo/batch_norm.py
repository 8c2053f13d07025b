"""Batch norm's statistics of evaluation, taken anew over a data set instead of trailing the training."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def reestimated(
    model: nn.Module,
    passes: Iterable[Callable[[], object]],
    sum_over_ranks: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> Iterator[None]:
    """Inside, ``model`` (in evaluation mode) has the means of the batch statistics of ``passes``; then its own again.

    Args:
        passes: each runs ``model`` on one batch.
        sum_over_ranks: adds a tensor up over the processes that share the batches out among them.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        yield
        return
    before = [(norm.momentum, [buffer.clone() for buffer in norm.buffers()]) for norm in norms]
    try:
        _estimate(norms, passes, sum_over_ranks)
        yield
    finally:
        for norm, (momentum, buffers) in zip(norms, before, strict=True):
            norm.momentum = momentum
            for buffer, old in zip(norm.buffers(), buffers, strict=True):
                buffer.copy_(old)


@torch.no_grad()
def _estimate(
    norms: list[_BatchNorm], passes: Iterable[Callable[[], object]], sum_over_ranks: Callable[[Tensor], Tensor]
) -> None:
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    n = 0
    for run in passes:
        run()
        n += 1
    total = float(sum_over_ranks(torch.tensor(float(n), dtype=torch.float64, device=_device(norms))))
    for norm in norms:
        norm.eval()
        for statistic in (norm.running_mean, norm.running_var):
            if statistic is not None and total:
                statistic.copy_(sum_over_ranks(statistic.double() * n) / total)


def _device(norms: list[_BatchNorm]) -> torch.device | None:
    return next((buffer.device for norm in norms for buffer in norm.buffers()), None)
