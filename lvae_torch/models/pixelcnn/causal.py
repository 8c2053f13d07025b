"""Convolutions that look only at what comes before, row by row and from left to right (van den Oord et al. 2016).

A masked convolution sees whole images in training. While an image is drawn, it is handed one new strip of a row at a
time, and remembers the rows above that its kernel still reaches: nothing is computed twice.
Shapes: B batch, C channels, k kernel size (odd), r = (k + 1) / 2 rows that a kernel of the whole half-plane has.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, layer_norm, pad

Own = Literal["A", "B"]
"""Whether a position may not (A) or may (B) see itself."""


def raster_mask(k: int, own: Own) -> Tensor:
    """(r, k): all rows above, and the own row up to the middle."""
    mask = torch.ones(k // 2 + 1, k, dtype=torch.bool)
    mask[-1] = horizontal_mask(k, own)[0]
    return mask


def vertical_mask(k: int) -> Tensor:
    """(r, k): all rows above, and the whole own row."""
    return torch.ones(k // 2 + 1, k, dtype=torch.bool)


def horizontal_mask(k: int, own: Own) -> Tensor:
    """(1, k): the own row up to the middle."""
    columns = torch.arange(k)
    return (columns < k // 2 + int(own == "B")).unsqueeze(0)


@dataclass
class Place:
    """The strip of a row that is being computed."""

    row: int = 0
    first: int = 0
    """Its first column."""


class Memory:
    """The last rows of a convolution's input, zeros around them, while images are drawn."""

    def __init__(self, place: Place, n_rows: int, width: int, margin: int) -> None:
        self.place = place
        self.n_rows = n_rows
        self.width = width
        self.margin = margin
        self._row = 0
        self._rows: Tensor | None = None  # (B, C, n_rows, width + 2 margin); the last is the place's own

    def put(self, strip: Tensor) -> Tensor:
        """Write a strip, (B, C, 1, n), at the place; gives the rows, as far as a kernel over the strip reaches."""
        if self._rows is None:
            self._rows = strip.new_zeros(*strip.shape[:2], self.n_rows, self.width + 2 * self.margin)
        if self.place.row > self._row:  # one further down
            self._rows = pad(self._rows[:, :, 1:], (0, 0, 0, 1))
            self._row = self.place.row
        first, n = self.place.first, strip.shape[-1]
        self._rows[:, :, -1:, self.margin + first : self.margin + first + n] = strip
        return self._rows[:, :, :, first : first + n + 2 * self.margin]


class MaskedConv2d(nn.Module):
    """A convolution with a mask over its kernel, whose last row is the position's own: same height and width out."""

    mask: Tensor

    def __init__(self, n_in: int, n_out: int, mask: Tensor) -> None:
        """``mask``: (rows, k), True where the kernel may look."""
        super().__init__()
        like = nn.Conv2d(n_in, n_out, (mask.shape[0], mask.shape[1]))
        assert like.bias is not None
        self.weight, self.bias = like.weight, like.bias
        self.register_buffer("mask", mask, persistent=False)
        self.memory: Memory | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Of whole images; or, inside ``drawing``, of the strip x, (B, C, 1, n), that comes next."""
        n_rows, k = self.mask.shape
        seen = pad(x, (k // 2, k // 2, n_rows - 1, 0)) if self.memory is None else self.memory.put(x)
        return conv2d(seen, self.weight * self.mask, self.bias)

    def remember(self, strip: Tensor) -> None:
        """Inside ``drawing``: put this, (B, C, 1, n), in place of what stood in for it."""
        assert self.memory is not None, "outside of drawing there is nothing to remember"
        self.memory.put(strip)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each position."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), same shape in and out."""
        return layer_norm(x.movedim(1, -1), self.normalized_shape, self.weight, self.bias, self.eps).movedim(-1, 1)


@contextmanager
def drawing(network: nn.Module, width: int) -> Iterator[Place]:
    """Inside, the masked convolutions of ``network`` take strips of images ``width`` wide, at the place that it gives.

    Rows come in their order, and the columns of a row in theirs.
    """
    place, convolutions = Place(), [m for m in network.modules() if isinstance(m, MaskedConv2d)]
    try:
        for convolution in convolutions:
            n_rows, k = convolution.mask.shape
            convolution.memory = Memory(place, n_rows, width, margin=k // 2)
        yield place
    finally:
        for convolution in convolutions:
            convolution.memory = None
