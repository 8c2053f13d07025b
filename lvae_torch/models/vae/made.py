"""MADE: a masked network whose output i sees only inputs before i (Germain et al. 2015,
https://arxiv.org/abs/1502.03509).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class MaskedLinear(nn.Linear):
    """A linear layer, (B, n_in) -> (B, n_out), with some weights masked to zero."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        """``mask``: (n_out, n_in), 1 keeps a weight, 0 removes it."""
        super().__init__(mask.shape[1], mask.shape[0])
        # The mask follows from the sizes, so checkpoints leave it out.
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight * self.mask, self.bias)


def cyclic_degrees(n_dims: int, widths: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Degrees of the units of each hidden layer: 0 .. D - 2, in turns. A unit of degree d sees inputs 0 .. d.

    A unit of degree D - 1 would see all inputs, so no output could use it.
    """
    return tuple(tuple(unit % max(1, n_dims - 1) for unit in range(width)) for width in widths)


class MADE(nn.Sequential):
    """(B, D) -> (B, 2D), with ReLUs: two numbers per entry, D first and D second ones, from the entries before it."""

    def __init__(self, n_dims: int, degrees: Sequence[Sequence[int]]) -> None:
        """``degrees`` of each hidden layer's units: a unit of degree d sees inputs 0 .. d."""
        layers: list[nn.Module] = []
        columns = [torch.arange(n_dims), *map(torch.tensor, degrees)]
        for below, above in pairwise(columns):
            layers += [MaskedLinear(below <= above[:, None]), nn.ReLU()]
        sees = columns[-1] < torch.arange(n_dims)[:, None]  #                    (D, W)
        super().__init__(*layers, MaskedLinear(sees.repeat(2, 1)))
