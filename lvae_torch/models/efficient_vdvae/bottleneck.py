"""Convolutions and the bottleneck cell of Efficient-VDVAE (Hazami et al. 2022). Shapes: B batch, C channels, H, W."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu

Kernel = int | tuple[int, int]


class SameConv2d(nn.Conv2d):
    """A convolution whose output has 1 / stride of its input's size, also where the kernel is even.

    Kernel minus stride rows and columns of zeros go around x; where that is odd, the ``extra`` one comes first (top
    and left) or last. Weights are Glorot uniform times ``gain`` and biases zero; without a gain both are torch's own.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel: Kernel,
        stride: int = 1,
        gain: float | None = 1.0,
        extra: Literal["first", "last"] = "first",
    ) -> None:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        rows, columns = height - stride, width - stride
        is_even = rows % 2 == columns % 2 == 0
        super().__init__(
            n_in, n_out, (height, width), stride=stride, padding=(rows // 2, columns // 2) if is_even else 0
        )
        top, left = ((rows + 1) // 2, (columns + 1) // 2) if extra == "first" else (rows // 2, columns // 2)
        self._uneven = None if is_even else (left, columns - left, top, rows - top)
        if gain is not None:
            nn.init.xavier_uniform_(self.weight, gain)
            assert self.bias is not None
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self._uneven is None else pad(x, self._uneven))


class Bottleneck(nn.Module):
    """Convolutions n_in -> n_mid -> ... -> n_mid -> n_out, a SiLU before each; no norms. Several inputs are joined.

    The first and last have kernel 1 (or ``kernel``, without ``pointwise_ends``), the ``inner_layers`` between them
    ``kernel``. The input is added where ``residual``.
    """

    def __init__(
        self,
        widths: tuple[int, int, int],
        inner_layers: int,
        kernel: int,
        pointwise_ends: bool = True,
        residual: bool = False,
        last_gain: float = 1.0,
    ) -> None:
        super().__init__()
        n_in, n_mid, n_out = widths
        end = 1 if pointwise_ends else kernel
        self.residual = residual
        self.conv = nn.ModuleList(
            [
                SameConv2d(n_in, n_mid, end, gain=None, extra="last"),  # as published: torch's initial weights, padding
                *(SameConv2d(n_mid, n_mid, kernel) for _ in range(inner_layers)),
                SameConv2d(n_mid, n_out, end, gain=last_gain),
            ]
        )

    def forward(self, *inputs: Tensor) -> Tensor:
        x = inputs[0] if len(inputs) == 1 else torch.cat(inputs, dim=1)
        h = x
        for conv in self.conv:
            h = conv(silu(h))
        return x + h if self.residual else h
