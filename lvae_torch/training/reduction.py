"""Gradients on their way into the flat gradient and over the ranks, slice by slice while the backward pass runs."""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from lvae_torch.training.flat import FlatParameters

SLICE_BYTES = 25 * 2**20
"""Long enough for a network's full speed, short enough that most of it travels during the backward pass."""


@dataclass
class _Slice:
    """A piece of the flat gradient, its parameters, and how many of them the backward pass has not reached yet."""

    gradient: Tensor
    parameters: Sequence[Tensor]
    """In the order in which they lie in ``gradient``; in place of some the copies that the model uses."""
    missing: int = 0

    def collect(self) -> None:
        """Add the parameters' own gradients to the piece, and free them."""
        places = self.gradient.split([p.numel() for p in self.parameters])
        pairs = zip(places, self.parameters, strict=True)
        reached = [(place, p) for place, p in pairs if p.grad is not None and not self.is_copy(p)]
        if not reached:
            return
        ours, theirs = zip(*((place, in_order(p)) for place, p in reached), strict=True)
        torch._foreach_add_(ours, theirs)
        for _, parameter in reached:
            parameter.grad = None

    def collect_copies(self) -> None:
        """Add the gradients of copies to the piece, in one conversion, and free them."""
        if not (copies := [p for p in self.parameters if p.grad is not None and self.is_copy(p)]):
            return
        nothing, have_come = copies[0].new_zeros(()), set(map(id, copies))
        parts = [in_order(p) if id(p) in have_come else nothing.expand(p.numel()) for p in self.parameters]
        self.gradient.add_(torch.cat(parts))
        for copy in copies:
            copy.grad = None

    def is_copy(self, parameter: Tensor) -> bool:
        return parameter.dtype != self.gradient.dtype


def in_order(parameter: Tensor) -> Tensor:
    """The gradient of a parameter as a vector, in the order of memory, which is the parameter's."""
    gradient = parameter.grad
    assert gradient is not None, "autograd gives it the strides of the parameter"
    return gradient.as_strided((gradient.numel(),), (1,))


class GradientSlices:
    """The flat gradient in slices, each of which is complete as soon as the backward pass has reached its parameters.

    ``collecting``: autograd adds each gradient to the one before, an operation for each of a thousand parameters. Here
    it leaves them where they are, and a complete slice is added in one operation. With several ranks a complete slice
    then travels, if those before it are under way: so the order is the same on every rank. PyTorch's DDP copies each
    gradient into a bucket and out again, though here all of them lie in one vector. Gradients of the last parameters
    come first.
    """

    def __init__(
        self,
        flat: FlatParameters,
        world: int = 1,
        collecting: bool = False,
        slice_bytes: int = SLICE_BYTES,
        copies: Mapping[int, Tensor] | None = None,
    ) -> None:
        """``flat`` must have a gradient; all ranks must have the same parameters.

        Args:
            copies: what the model uses in place of some parameters, by ``id`` of these: leaves in another precision.
        """
        self.world = world
        self.collecting = collecting
        self._has_copies = bool(copies)
        self.slices = list(_slices(flat, slice_bytes, copies or {}))
        self._works: list[dist.Work] = []
        self._n_sent = 0
        self._is_on = self._is_last = False
        for number, piece in enumerate(self.slices):
            hook = self._hook(number)
            for parameter in piece.parameters:
                if collecting:
                    parameter.grad = None
                parameter.register_post_accumulate_grad_hook(hook)

    def _hook(self, number: int) -> Callable[[Tensor], None]:
        """What a parameter of the slice calls; it holds no slice, for no garbage collector sees that cycle."""
        own = weakref.ref(self)

        def reached(_: Tensor) -> None:
            if (slices := own()) is not None:
                slices._reached(slices.slices[number])

        return reached

    @contextmanager
    def passing(self, is_last: bool = True) -> Iterator[None]:
        """Around each backward pass; after the ``last`` of a step the flat gradient is the mean over all ranks."""
        for piece in self.slices:
            piece.missing = len(piece.parameters)
        self._n_sent, self._works, self._is_on, self._is_last = 0, [], True, is_last
        try:
            yield
            self._complete(len(self.slices))  # what the pass did not reach, for a parameter took no part in the loss
            for work in self._works:
                work.wait()
        except BaseException:
            self._forget()
            raise
        finally:
            self._works, self._is_on = [], False

    def _forget(self) -> None:
        """Free gradients that were not collected, to which the next pass would add."""
        for piece in self.slices:
            for parameter in piece.parameters:
                if self.collecting or piece.is_copy(parameter):
                    parameter.grad = None

    def _reached(self, piece: _Slice) -> None:
        if not self._is_on:
            return
        piece.missing -= 1
        if piece.missing == 0:
            ready = self._n_sent
            while ready < len(self.slices) and self.slices[ready].missing == 0:
                ready += 1
            self._complete(ready)

    def _complete(self, until: int) -> None:
        for piece in self.slices[self._n_sent : until]:
            if self._has_copies:
                piece.collect_copies()
            if self.collecting:
                piece.collect()
            if self.world > 1 and self._is_last:
                self._works.append(_start_mean(piece.gradient, self.world))
        self._n_sent = until


def _slices(flat: FlatParameters, slice_bytes: int, copies: Mapping[int, Tensor]) -> Iterator[_Slice]:
    """Pieces of at least ``slice_bytes`` from the end of the gradient to its beginning, whose piece may be shorter."""
    first = last = flat.gradient.numel()
    parameters: list[Tensor] = []
    for parameter in reversed(flat.parameters):
        first -= parameter.numel()
        parameters.insert(0, copies.get(id(parameter), parameter))
        if (last - first) * flat.gradient.element_size() >= slice_bytes or first == 0:
            yield _Slice(flat.gradient[first:last], parameters)
            last, parameters = first, []


def _start_mean(piece: Tensor, world: int) -> dist.Work:
    if piece.is_cuda:  # NCCL divides on the way
        work = dist.all_reduce(piece, dist.ReduceOp.AVG, async_op=True)
    else:
        work = dist.all_reduce(piece.mul_(1 / world), async_op=True)
    assert work is not None, "async_op=True"
    return work
