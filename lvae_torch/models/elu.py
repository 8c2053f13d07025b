"""ELU, x where x > 0, else e^x - 1, that is quick on a CPU.

PyTorch's takes expm1, which costs ten times the exponential: a fifth of the training step of a 3-layer spatial LVAE
(docs/performance.md). Here it is max(x, e^min(x, 0) - 1), exact to 1.2e-7, in pieces that stay in the cache. In
float64 and on other devices it is PyTorch's own.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

PIECE = 2**16  # numbers; 256 KiB in float32


def elu_(x: Tensor) -> Tensor:
    """ELU of x, of any shape, in place."""
    if not _is_quick(x):
        return torch.nn.functional.elu_(x)
    if torch.compiler.is_compiling():  # the compiler makes its own pieces
        return x.copy_(torch.maximum(x, _below_zero(x)))
    for piece in x.as_strided((x.numel(),), (1,)).split(PIECE):
        torch.maximum(piece, _below_zero(piece), out=piece)
    return x


def _below_zero(x: Tensor) -> Tensor:
    """e^min(x, 0) - 1, computed in float32, also for bfloat16."""
    return x.float().clamp_max(0).exp_().sub(1).to(x.dtype)


def elu_gradient(gradient: Tensor, y: Tensor) -> Tensor:
    """Gradient of the input from that of the output y."""
    return torch.ops.aten.elu_backward(gradient, 1.0, 1.0, 1.0, True, y)


class Elu(nn.Module):
    """ELU as a layer, in place or not; it keeps its output for the backward pass."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # it cannot follow a function that changes its input
            return torch.maximum(x, _below_zero(x)) if _is_quick(x) else torch.nn.functional.elu(x)
        y: Tensor = _InPlace.apply(x if self.inplace else x.clone())
        return y


class _InPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        y = elu_(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return elu_gradient(gradient, y)


def _is_quick(x: Tensor) -> bool:
    """Whether the pieces pay: numbers of a CPU, of at most single precision, that lie together in memory.

    Tensors without numbers go the same way, so that what they tell of a step's memory is what a CPU takes.
    """
    if x.device.type not in ("cpu", "meta") or x.dtype == torch.float64:
        return False
    return x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
