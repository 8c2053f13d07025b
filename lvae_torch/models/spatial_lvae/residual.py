"""Residual blocks of the spatial ladder VAE. Shapes: B batch, C channels, H W height and width."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

NONLINEARITIES: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,  # slope 0.01
    "selu": nn.SELU,
}

RESIDUAL_TYPES = ("bacdbacd", "bacdbac", "cabdcabd")


@dataclass(frozen=True)
class BlockStyle:
    """Options that all residual blocks of a model share."""

    channels: int
    nonlinearity: str = "elu"
    residual_type: str = "bacdbacd"
    """Order of the layers: b batch norm, a activation, c convolution, d dropout."""
    use_batch_norm: bool = True
    dropout: float = 0.0

    def activation(self, inplace: bool = False) -> nn.Module:
        return NONLINEARITIES[self.nonlinearity](inplace=inplace)

    def layers(self) -> list[nn.Module]:
        """Layers of the residual branch, without b if batch norm is off and without d if dropout is off."""
        absent = ("" if self.use_batch_norm else "b") + ("" if self.dropout > 0 else "d")
        order = "".join(letter for letter in self.residual_type if letter not in absent)
        # The first layer must not work in place: the sum needs the block's input.
        return [self._layer(letter, inplace=i > 0) for i, letter in enumerate(order)]

    def _layer(self, letter: str, inplace: bool) -> nn.Module:
        match letter:
            case "a":
                return self.activation(inplace)
            case "b":
                return nn.BatchNorm2d(self.channels)
            case "c":
                return nn.Conv2d(self.channels, self.channels, kernel_size=3, padding=1)
            case _:
                return nn.Dropout2d(self.dropout)


class Gate(nn.Module):
    """activation(A x) * sigmoid(B x); one 1x1 convolution of twice the width computes A x and B x."""

    def __init__(self, style: BlockStyle) -> None:
        super().__init__()
        self.conv = nn.Conv2d(style.channels, 2 * style.channels, kernel_size=1)
        self.activation = style.activation()

    def forward(self, h: Tensor) -> Tensor:
        value, gate = self.conv(h).chunk(2, dim=1)
        return self.activation(value) * torch.sigmoid(gate)


class ResidualBlock(nn.Module):
    """x + gate(branch(x)), same shape in and out; there is no activation after the sum."""

    def __init__(self, style: BlockStyle, gated: bool) -> None:
        super().__init__()
        self.branch = nn.Sequential(*style.layers())
        self.gate = Gate(style) if gated else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.branch(x)
        return x + (h if self.gate is None else self.gate(h))


class Merge(nn.Module):
    """Merges two feature maps: a 1x1 convolution of both, then (unless linear) a gated residual block."""

    def __init__(self, style: BlockStyle, linear: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * style.channels, style.channels, kernel_size=1)
        self.block = None if linear else ResidualBlock(style, gated=True)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        h = self.conv(torch.cat([first, second], dim=1))
        return h if self.block is None else self.block(h)


def residual_tower(style: BlockStyle, gated: bool, blocks: int, halvings: int = 0, up: bool = False) -> nn.Sequential:
    """Residual blocks in a row; before each of the first ``halvings``, height and width halve (``up``: double)."""
    tower: list[nn.Module] = []
    for j in range(blocks):
        if j < halvings:
            tower.append(doubling(style.channels) if up else halving(style.channels))
        tower.append(ResidualBlock(style, gated))
    return nn.Sequential(*tower)


def halving(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel_size=3, stride=2, padding=1)


def doubling(channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, channels, kernel_size=3, stride=2, padding=1, output_padding=1)
