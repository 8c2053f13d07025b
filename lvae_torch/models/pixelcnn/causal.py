"""Convolutions that see only earlier positions in raster order (van den Oord et al. 2016).

In training, a masked convolution takes whole images. While images are drawn, it takes one strip of a row at a time
and remembers the rows above that its kernel reaches, so nothing is computed twice.
Shapes: B batch, C channels, k kernel size (odd), r = (k + 1) / 2 rows of a kernel (the own row and those above).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, layer_norm, pad

Own = Literal["A", "B"]
"""Mask A hides the position itself, mask B shows it."""


def raster_mask(k: int, own: Own) -> Tensor:
    """Mask (r, k) that shows all rows above, and the own row up to the middle."""
    mask = torch.ones(k // 2 + 1, k, dtype=torch.bool)
    mask[-1] = horizontal_mask(k, own)[0]
    return mask


def vertical_mask(k: int) -> Tensor:
    """Mask (r, k) that shows all rows above, and the whole own row."""
    return torch.ones(k // 2 + 1, k, dtype=torch.bool)


def horizontal_mask(k: int, own: Own) -> Tensor:
    """Mask (1, k) that shows the own row up to the middle."""
    columns = torch.arange(k)
    return (columns < k // 2 + int(own == "B")).unsqueeze(0)


@dataclass
class Place:
    """Position of the strip that is being computed."""

    row: int = 0
    first: int = 0
    """First column of the strip."""


class Memory:
    """The last rows of a convolution's input, padded with zeros, while images are drawn."""

    def __init__(self, place: Place, n_rows: int, width: int, margin: int) -> None:
        self.place = place
        self.n_rows = n_rows
        self.width = width
        self.margin = margin
        self._row = 0
        self._rows: Tensor | None = None  # (B, C, n_rows, width + 2 margin); the last row is the place's

    def put(self, strip: Tensor) -> Tensor:
        """Write a strip, (B, C, 1, n), at the place; return the part of the rows that a kernel over it reaches."""
        if self._rows is None:
            self._rows = strip.new_zeros(*strip.shape[:2], self.n_rows, self.width + 2 * self.margin)
        if self.place.row > self._row:  # the next row has begun
            self._rows = pad(self._rows[:, :, 1:], (0, 0, 0, 1))
            self._row = self.place.row
        first, n = self.place.first, strip.shape[-1]
        self._rows[:, :, -1:, self.margin + first : self.margin + first + n] = strip
        return self._rows[:, :, :, first : first + n + 2 * self.margin]


class MaskedConv2d(nn.Module):
    """A convolution with a masked kernel that keeps height and width; the last kernel row is the position's own."""

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
        """Convolve whole images x; inside ``drawing``, convolve the next strip x, (B, C, 1, n)."""
        n_rows, k = self.mask.shape
        seen = pad(x, (k // 2, k // 2, n_rows - 1, 0)) if self.memory is None else self.memory.put(x)
        return conv2d(seen, self.weight * self.mask, self.bias)

    def remember(self, strip: Tensor) -> None:
        """Inside ``drawing``: replace the placeholder at the place by ``strip``, (B, C, 1, n)."""
        assert self.memory is not None, "outside of drawing there is nothing to remember"
        self.memory.put(strip)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each position."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), same shape in and out."""
        return layer_norm(x.movedim(1, -1), self.normalized_shape, self.weight, self.bias, self.eps).movedim(-1, 1)


@contextmanager
def drawing(network: nn.Module, width: int) -> Iterator[Place]:
    """Inside, the masked convolutions of ``network`` take strips of images ``width`` wide, at the yielded place.

    Visit the rows in order, and the columns of each row in order.
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
