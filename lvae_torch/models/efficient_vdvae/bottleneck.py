"""Convolutions and the bottleneck cell of Efficient-VDVAE (Hazami et al. 2022)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from lvae_torch.models.fused import activated_conv

Kernel = int | tuple[int, int]


class SameConv2d(nn.Conv2d):
    """A convolution whose output is 1 / stride the size of its input, for odd and even kernels.

    It pads x with kernel - stride rows and columns of zeros; if that is odd, the ``extra`` one comes first (top and
    left) or last. Weights start Glorot-uniform times ``gain``, biases at zero; ``gain`` None keeps torch's defaults.
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

    def after_silu(self, *inputs: Tensor) -> Tensor:
        """conv(SiLU(x)), where x is all inputs, each (B, n, H, W), one over the other; they are not joined in memory.

        The first takes the bias with it.
        """
        if self._uneven is not None or self.kernel_size[0] != self.kernel_size[1]:
            return self(silu(inputs[0] if len(inputs) == 1 else torch.cat(inputs, dim=1)))
        kernels = [self.weight]  # a split into one part would copy its gradient
        if len(inputs) > 1:
            kernels = list(self.weight.split([x.shape[1] for x in inputs], dim=1))
        first, *others = zip(inputs, kernels, strict=True)
        y = activated_conv("silu", *first, self.bias)
        for x, kernel in others:
            y = y + activated_conv("silu", x, kernel, None)
        return y


class Bottleneck(nn.Module):
    """Convolutions n_in -> n_mid -> ... -> n_mid -> n_out, each after a SiLU, without normalisation.

    The ``inner_layers`` convolutions in the middle have kernel ``kernel``; the first and the last have kernel 1 if
    ``pointwise_ends``. Several inputs count as one with all their channels. ``residual`` adds the input to the output.
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
                SameConv2d(n_in, n_mid, end, gain=None, extra="last"),  # as published: torch's default weights
                *(SameConv2d(n_mid, n_mid, kernel) for _ in range(inner_layers)),
                SameConv2d(n_mid, n_out, end, gain=last_gain),
            ]
        )

    def forward(self, *inputs: Tensor) -> Tensor:
        h = inputs
        for conv in self.conv:
            assert isinstance(conv, SameConv2d)
            h = (conv.after_silu(*h),)
        return inputs[0] + h[0] if self.residual else h[0]
