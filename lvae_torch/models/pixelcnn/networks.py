"""The two networks that compute each position's logits: PixelCNN, and gated PixelCNN (van den Oord et al. 2016,
https://arxiv.org/abs/1606.05328).

A network runs over whole images, or inside ``causal.drawing`` position by position with the same layers
(``logits_at``). Shapes: B batch, E embedding, W width.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lvae_torch.models.pixelcnn.causal import (
    ChannelNorm,
    MaskedConv2d,
    Own,
    horizontal_mask,
    raster_mask,
    vertical_mask,
)

Above = list[Tensor] | None
"""For each layer, the output that a row needs from the row above, (B, C, 1, row's width); None in the first row."""


def head(width: int, out_width: int, n_levels: int) -> nn.Sequential:
    """(B, W, H, W') -> logits (B, K, H, W')."""
    return nn.Sequential(
        ChannelNorm(width),
        nn.ReLU(),
        nn.Conv2d(width, out_width, kernel_size=1),
        nn.ReLU(),
        nn.Conv2d(out_width, n_levels, kernel_size=1),
    )


class PlainBlock(nn.Module):
    """x + bottleneck(x): one masked convolution at half the width."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        half = max(1, width // 2)
        self.branch = nn.Sequential(
            *(ChannelNorm(width), nn.ReLU(), nn.Conv2d(width, half, kernel_size=1)),
            *(ChannelNorm(half), nn.ReLU(), MaskedConv2d(half, half, raster_mask(kernel, "B"))),
            *(ChannelNorm(half), nn.ReLU(), nn.Dropout(dropout), nn.Conv2d(half, width, kernel_size=1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class PlainNetwork(nn.Module):
    """A convolution that does not see its own position, then residual blocks. It has PixelCNN's known blind spot."""

    def __init__(
        self,
        n_in: int,
        width: int,
        n_blocks: int,
        n_levels: int,
        kernel: int = 3,
        first_kernel: int = 7,
        out_width: int = 512,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.first = MaskedConv2d(n_in, width, raster_mask(first_kernel, "A"))
        self.blocks = nn.Sequential(*(PlainBlock(width, kernel, dropout) for _ in range(n_blocks)))
        self.head = head(width, out_width, n_levels)

    def forward(self, embedded: Tensor) -> Tensor:
        """(B, E, H, W) -> logits (B, K, H, W), each computed from earlier positions."""
        return self.head(self.blocks(self.first(embedded)))

    def logits_at(self, unknown: Tensor, column: int, above: Above) -> Tensor:
        """Logits at the place, (B, K, 1, 1); ``unknown``, (B, E, 1, 1), is a placeholder for the value to draw."""
        return self(unknown)

    def settle(self, embedded: Tensor) -> None:
        """Take in the embedding of the value drawn at the place, (B, E, 1, 1)."""
        self.first.remember(embedded)

    def settle_row(self, embedded: Tensor) -> Above:
        """Take in a finished row, (B, E, 1, row's width); return what the next row needs from it."""
        return None


class GatedLayer(nn.Module):
    """A vertical stack that sees all rows above, and a horizontal stack that sees its own row and the vertical one."""

    def __init__(self, n_in: int, width: int, kernel: int, own: Own, dropout: float) -> None:
        """``own`` is A only in the first layer, which has no norms and no residual connection."""
        super().__init__()
        self.is_first = own == "A"
        self.norm_above = nn.Identity() if self.is_first else ChannelNorm(n_in)
        self.norm_row = nn.Identity() if self.is_first else ChannelNorm(n_in)
        self.vertical = MaskedConv2d(n_in, 2 * width, vertical_mask(kernel))
        self.horizontal = MaskedConv2d(n_in, 2 * width, horizontal_mask(kernel, own))
        self.link = nn.Conv2d(2 * width, 2 * width, kernel_size=1, bias=False)  # no bias: a missing row acts as zeros
        self.out = nn.Sequential(nn.Dropout(dropout), nn.Conv2d(width, width, kernel_size=1))

    def forward(self, stacks: Tensor) -> Tensor:
        """Map both stacks, (2, B, n_in, H, W) -> (2, B, W, H, W)."""
        v, h = stacks.unbind()
        v, rows = self.down(v)
        rows_above = pad(rows[:, :, :-1], (0, 0, 1, 0))
        return torch.stack([v, self.right(h, rows_above)])

    def down(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """The vertical stack's output, and the features that the horizontal stack sees one row below."""
        rows = self.vertical(self.norm_above(v))
        return gate(rows), rows

    def right(self, h: Tensor, above: Tensor | None) -> Tensor:
        """The horizontal stack's output."""
        params = self.horizontal(self.norm_row(h))
        out: Tensor = self.out(gate(params if above is None else params + self.link(above)))
        return out if self.is_first else h + out


class GatedNetwork(nn.Module):
    """Gated layers directly on the embedding; with enough layers each position sees all earlier ones."""

    def __init__(
        self,
        n_in: int,
        width: int,
        n_layers: int,
        n_levels: int,
        kernel: int = 7,
        out_width: int = 512,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.first = GatedLayer(n_in, width, kernel, "A", dropout)
        self.later = nn.ModuleList(GatedLayer(width, width, kernel, "B", dropout) for _ in range(n_layers - 1))
        self.head = head(width, out_width, n_levels)

    def forward(self, embedded: Tensor) -> Tensor:
        """(B, E, H, W) -> logits (B, K, H, W), each computed from earlier positions."""
        stacks = torch.stack([embedded, embedded])
        for layer in self._layers:
            stacks = layer(stacks)
        return self.head(stacks[1])

    def logits_at(self, unknown: Tensor, column: int, above: Above) -> Tensor:
        """Logits at the place, (B, K, 1, 1); ``unknown``, (B, E, 1, 1), is a placeholder for the value to draw."""
        h = unknown
        for i, layer in enumerate(self._layers):
            h = layer.right(h, None if above is None else above[i][..., column : column + 1])
        logits: Tensor = self.head(h)
        return logits

    def settle(self, embedded: Tensor) -> None:
        """Take in the embedding of the value drawn at the place, (B, E, 1, 1)."""
        self.first.horizontal.remember(embedded)

    def settle_row(self, embedded: Tensor) -> Above:
        """Take in a finished row, (B, E, 1, row's width); return what the next row needs from it."""
        v, above = embedded, []
        for layer in self._layers:
            v, rows = layer.down(v)
            above.append(rows)
        return above

    @property
    def _layers(self) -> list[GatedLayer]:
        return [layer for layer in (self.first, *self.later) if isinstance(layer, GatedLayer)]


def gate(params: Tensor) -> Tensor:
    """The gated activation tanh(a) * sigmoid(b), Eq. 2: (B, 2W, ...) -> (B, W, ...)."""
    value, opening = params.chunk(2, dim=1)
    return torch.tanh(value) * torch.sigmoid(opening)
