"""Functions of which autograd would make several, in one: their backward pass keeps few maps, or moves less memory.

Each is used only where it was measured to pay on a CPU (docs/performance.md). Its values are those of the plain form
beside its name to the rounding of the last bits. Shapes: B batch, C channels, H W height and width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, gelu, linear, silu

from lvae_torch.models.elu import elu_, elu_gradient

aten = torch.ops.aten
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
"""With respect to input, weight and bias."""
FEW_PIXELS = 8192
"""On a CPU a 1x1 convolution of fewer pixels, B H W, is faster as a matrix product: 1.0 to 1.7 times, the fewer the
more; of more pixels with few channels it is slower."""


@dataclass(frozen=True)
class FromInput:
    """An activation whose gradient is computed from its input."""

    of: Callable[[Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]
    """(gradient of the output, input) -> gradient of the input."""


BEFORE: dict[str, FromInput] = {
    "gelu": FromInput(gelu, aten.gelu_backward),  # x Phi(x), not its tanh form
    "silu": FromInput(silu, aten.silu_backward),
}


@dataclass(frozen=True)
class FromResult:
    """An activation that works in place, because its gradient is computed from its output."""

    in_place: Callable[[Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]
    """(gradient of the output, output) -> gradient of the input."""


SELU_ALPHA, SELU_SCALE, LEAK = 1.6732632423543772848, 1.0507009873554804934, 0.01  # as torch has them
IN_PLACE: dict[str, FromResult] = {
    "elu": FromResult(elu_, elu_gradient),
    "selu": FromResult(torch.selu_, lambda g, y: aten.elu_backward(g, SELU_ALPHA, SELU_SCALE, 1.0, True, y)),
    "relu": FromResult(torch.relu_, lambda g, y: aten.threshold_backward(g, y, 0.0)),
    "leakyrelu": FromResult(
        lambda x: torch.nn.functional.leaky_relu_(x, LEAK), lambda g, y: aten.leaky_relu_backward(g, y, LEAK, True)
    ),
}


def activated_conv(kind: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """conv2d(activation(x)), of the same height and width, for odd square kernels; ``kind`` is a key of ``BEFORE``.

    Autograd would keep x and activation(x). This keeps x, and computes the activation again: it costs little beside a
    convolution.
    """
    y: Tensor = _ActivatedConv.apply(BEFORE[kind], x, weight, bias)
    return y


def gated_sum(kind: str, x: Tensor, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x + activation(A h + a) * sigmoid(B h + b), (B, C, H, W), for 1x1 kernels; ``kind`` is a key of ``IN_PLACE``.

    Autograd would keep A h + a, both factors of the product, and their inputs. This keeps the two factors, which take
    the place of their inputs; and it computes them apart, because halves of one map do not lie together in memory.

    Args:
        weight: A over B, (2C, C, 1, 1).
        bias: a and b, (2C,).
    """
    y: Tensor = _GatedSum.apply(IN_PLACE[kind], x, h, weight, bias)
    return y


class _ActivatedConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, activation: FromInput, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.activation, ctx.has_bias = activation, bias is not None
        return _convolved(activation.of(x), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        # Under autocast the forward pass convolved in half precision, and so does this one.
        activated = ctx.activation.of(x).to(gradient.dtype)
        to_x, to_weight, to_bias = _gradients(gradient, activated, weight, ctx.has_bias, ctx.needs_input_grad[1:])
        return None, None if to_x is None else ctx.activation.gradient(to_x.to(x.dtype), x), to_weight, to_bias


class _GatedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, activation: FromResult, x: Tensor, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        (of_value, of_gate), (to_value, to_gate) = weight.chunk(2), bias.chunk(2)
        value, gate = _convolved(h, of_value, to_value), _convolved(h, of_gate, to_gate)
        activation.in_place(value), gate.sigmoid_()
        ctx.save_for_backward(h, weight, value, gate)
        ctx.activation = activation
        return torch.addcmul(x, value, gate) if x.dtype == value.dtype else x + value * gate

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor | None, Tensor | None, Tensor | None]:
        h, weight, value, gate = ctx.saved_tensors
        g, h = gradient.to(value.dtype), h.to(value.dtype)
        to_value, to_gate = ctx.activation.gradient(g * gate, value), aten.sigmoid_backward(g * value, gate)
        needs, (a, b) = ctx.needs_input_grad[2:], weight.chunk(2)
        of_value, of_gate = _gradients(to_value, h, a, True, needs), _gradients(to_gate, h, b, True, needs)
        to_h = None if of_value[0] is None or of_gate[0] is None else of_value[0].add_(of_gate[0])
        return None, gradient, to_h, _joined(of_value[1], of_gate[1]), _joined(of_value[2], of_gate[2])


def _joined(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return None if first is None or second is None else torch.cat([first, second])


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """conv2d(x) of the same height and width."""
    if not _is_product(x, weight):
        return conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
    return _as_map(linear(_as_rows(x), weight.flatten(1), bias), x)


def _gradients(g: Tensor, x: Tensor, weight: Tensor, has_bias: bool, needed: tuple[bool, bool, bool]) -> Gradients:
    """Gradients of ``_convolved``, from the output's, in the dtype of g; those that are not needed are None."""
    if _is_product(x, weight):
        rows, kernel = _as_rows(g), weight.flatten(1).to(g.dtype)
        to_x = _as_map(rows @ kernel, x) if needed[0] else None
        to_weight = (rows.t() @ _as_rows(x)).view_as(weight) if needed[1] else None
        to_bias = rows.sum(dim=0) if needed[2] else None
    else:
        pad = weight.shape[-1] // 2
        n_bias = [weight.shape[0]] if has_bias else None
        how = (1, 1), (pad, pad), (1, 1), False, (0, 0), 1
        to_x, to_weight, to_bias = aten.convolution_backward(g, x, weight.to(g.dtype), n_bias, *how, list(needed))
    return to_x, _like(to_weight, weight), _like(to_bias, weight)


def _is_product(x: Tensor, weight: Tensor) -> bool:
    """Whether to take the convolution as a matrix product of the pixels, (B H W, C)."""
    if x.is_cuda:
        return False
    n_pixels = x.shape[0] * x.shape[2] * x.shape[3]
    is_flat = weight.shape[2:] == (1, 1) and x.is_contiguous(memory_format=torch.channels_last)
    return is_flat and n_pixels < FEW_PIXELS


def _as_rows(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B H W, C), without a copy where x is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _as_map(rows: Tensor, like: Tensor) -> Tensor:
    """(B H W, C) -> (B, C, H, W), channels-last, with height and width of ``like``."""
    return rows.view(like.shape[0], like.shape[2], like.shape[3], -1).permute(0, 3, 1, 2)


def _like(gradient: Tensor | None, weight: Tensor) -> Tensor | None:
    return None if gradient is None else gradient.to(weight.dtype)
