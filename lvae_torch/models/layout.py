"""Keeps all maps of a pass, and all their gradients, in the layout that the model has: channels-last on most devices.

PyTorch lays some gradients out channels-first whatever the maps are: those of slices, of views as vectors, of sums over
a batch. One of them turns the gradients of all blocks before it, and element-wise work on two layouts takes three to
five times the time. ``benchmarks.counts`` counts such operations. Shapes: B batch, C channels, H W height and width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def keeps_layout(x: Tensor) -> Tensor:
    """x, (B, C, H, W), itself; its gradient has the layout of x."""
    y: Tensor = _KeepsLayout.apply(x)
    return y


def laid_out_as(weight: Tensor, x: Tensor) -> Tensor:
    """x, (B, C, H, W), channels-last if the kernel ``weight`` is; vectors, (B, D), as they are."""
    is_map = x.dim() == weight.dim() == 4
    return x.contiguous(memory_format=torch.channels_last) if is_map and is_channels_last(weight) else x


def in_stream(x: Tensor) -> Tensor:
    """A learned map as the maps that it joins are: under autocast in half precision.

    Added in float32 it would turn all that follows to float32, which each convolution would convert again.
    """
    kind = x.device.type
    is_half = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)  # the meta device has none
    return x.to(torch.get_autocast_dtype(kind)) if is_half else x


def repeated(x: Tensor, n: int) -> Tensor:
    """A map, (1, C, H, W), n times: (n, C, H, W), in its layout."""
    if not is_channels_last(x):
        return x.expand(n, -1, -1, -1)
    return _as_images(_as_pixels(x).expand(n, -1, -1, -1).contiguous())


def copies(x: Tensor, n: int) -> Tensor:
    """x, (B, ...), n times, one whole batch after another: (n * B, ...), in its layout."""
    if n == 1:
        return x
    if not is_channels_last(x):
        return x.repeat(n, *[1] * (x.dim() - 1))
    return _as_images(_as_pixels(x).repeat(n, 1, 1, 1))


def plus_map(x: Tensor, learned: Tensor) -> Tensor:
    """x + learned, for x, (B, C, H, W), and a map, (1, C, H, W), whose gradient has its layout."""
    if not is_channels_last(learned):
        return x + learned
    return _as_images(_as_pixels(x) + _as_pixels(learned))


def is_channels_last(x: Tensor) -> bool:
    """Whether x, (B, C, H, W), is channels-last, and not channels-first as well (as maps of one pixel are).

    Tensors of other dimensions are not.
    """
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


class _KeepsLayout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.is_channels_last = is_channels_last(x)
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous(memory_format=torch.channels_last) if ctx.is_channels_last else gradient


def _as_pixels(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C)."""
    return x.permute(0, 2, 3, 1)


def _as_images(pixels: Tensor) -> Tensor:
    return pixels.permute(0, 3, 1, 2)
