"""Averages gradients over ranks where they lie: in the flat gradient, while the backward pass still runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor

from lvae_torch.training.flat import FlatParameters

SLICE_BYTES = 25 * 2**20
"""Long enough for a network's full speed, short enough that most of it travels during the backward pass."""


@dataclass
class _Slice:
    """A piece of the flat gradient, and how many of its parameters the backward pass has not reached yet."""

    gradient: Tensor
    n_parameters: int
    missing: int = 0


class GradientReduction:
    """The mean over all ranks of a flat gradient, slice by slice.

    PyTorch's DDP copies each gradient into a bucket and out again, though here all of them lie in one vector already.
    A slice travels as soon as the backward pass has reached all its parameters and the slices before it are under way:
    so the order is the same on every rank. Gradients of the last parameters come first.
    """

    def __init__(self, flat: FlatParameters, world: int, slice_bytes: int = SLICE_BYTES) -> None:
        """``flat`` must have a gradient; all ranks must have the same parameters."""
        self.world = world
        self.slices = list(_slices(flat, slice_bytes))
        self._works: list[dist.Work] = []
        self._n_sent = 0
        self._is_on = False
        owners = (piece for piece in self.slices for _ in range(piece.n_parameters))
        for parameter, piece in zip(reversed(flat.parameters), owners, strict=True):
            parameter.register_post_accumulate_grad_hook(lambda _, piece=piece: self._reached(piece))

    @contextmanager
    def reducing(self) -> Iterator[None]:
        """Around the last backward pass of a step; afterwards the flat gradient is the mean over all ranks."""
        for piece in self.slices:
            piece.missing = piece.n_parameters
        self._n_sent, self._works, self._is_on = 0, [], True
        try:
            yield
            self._send(len(self.slices))  # what the pass did not reach, for a parameter took no part in the loss
            for work in self._works:
                work.wait()
        finally:
            self._works, self._is_on = [], False

    def _reached(self, piece: _Slice) -> None:
        if not self._is_on:
            return
        piece.missing -= 1
        if piece.missing == 0:
            ready = self._n_sent
            while ready < len(self.slices) and self.slices[ready].missing == 0:
                ready += 1
            self._send(ready)

    def _send(self, until: int) -> None:
        for piece in self.slices[self._n_sent : until]:
            self._works.append(_start_mean(piece.gradient, self.world))
        self._n_sent = until


def _slices(flat: FlatParameters, slice_bytes: int) -> Iterator[_Slice]:
    """Pieces of at least ``slice_bytes`` from the end of the gradient to its beginning, whose piece may be shorter."""
    last = flat.gradient.numel()
    first, n_parameters = last, 0
    for parameter in reversed(flat.parameters):
        first, n_parameters = first - parameter.numel(), n_parameters + 1
        if (last - first) * flat.gradient.element_size() >= slice_bytes or first == 0:
            yield _Slice(flat.gradient[first:last], n_parameters)
            last, n_parameters = first, 0


def _start_mean(piece: Tensor, world: int) -> dist.Work:
    if piece.is_cuda:  # NCCL divides on the way
        work = dist.all_reduce(piece, dist.ReduceOp.AVG, async_op=True)
    else:
        work = dist.all_reduce(piece.mul_(1 / world), async_op=True)
    assert work is not None, "async_op=True"
    return work
