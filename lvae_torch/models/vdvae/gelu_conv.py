"""A convolution with its GELU in front, which keeps one map for the backward pass where autograd would keep two."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, gelu


class GeluConv2d(nn.Conv2d):
    """conv(GELU(x)) of stride 1 that keeps the size of its input; weights as torch's own, biases zero."""

    def __init__(self, n_in: int, n_out: int, kernel: int) -> None:
        super().__init__(n_in, n_out, kernel, padding=kernel // 2)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) -> (B, n_out, H, W)."""
        return gelu_conv(x, self.weight, self.bias)


def gelu_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """conv2d(GELU(x)), of the same height and width, for odd square kernels. GELU is x Phi(x), not its tanh form."""
    y: Tensor = _GeluConv.apply(x, weight, bias)
    return y


class _GeluConv(torch.autograd.Function):
    """GELU costs little beside a convolution, so its output is computed again rather than kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.n_bias = None if bias is None else bias.shape[0]
        return conv2d(gelu(x), weight, bias, padding=weight.shape[-1] // 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        pad = weight.shape[-1] // 2
        # Under autocast the forward pass convolved in half precision, and so does this one.
        to_g, to_weight, to_bias = torch.ops.aten.convolution_backward(
            gradient, gelu(x).to(gradient.dtype), weight.to(gradient.dtype),
            None if ctx.n_bias is None else [ctx.n_bias],
            (1, 1), (pad, pad), (1, 1), False, (0, 0), 1, ctx.needs_input_grad,
        )  # fmt: skip
        to_x = None if to_g is None else torch.ops.aten.gelu_backward(to_g.to(x.dtype), x)
        return to_x, _like(to_weight, weight), _like(to_bias, weight)


def _like(gradient: Tensor | None, weight: Tensor) -> Tensor | None:
    return None if gradient is None else gradient.to(weight.dtype)
