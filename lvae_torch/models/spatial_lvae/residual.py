"""Residual blocks of the spatial ladder VAE. Shapes: B batch, C channels, H W height and width."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lvae_torch.models.elu import Elu
from lvae_torch.models.fused import gated_sum

NONLINEARITIES: dict[str, type[nn.Module]] = {
    "elu": Elu,
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,  # slope 0.01
    "selu": nn.SELU,
}


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
        return [self._layer(letter, order[i - 1] if i else "") for i, letter in enumerate(order)]

    def _layer(self, letter: str, before: str) -> nn.Module:
        match letter:
            case "a":
                return self.activation(inplace=bool(before))
            case "b":
                return nn.BatchNorm2d(self.channels)
            case "c":
                return nn.Conv2d(self.channels, self.channels, kernel_size=3, padding=1)
            case _:
                return nn.Dropout2d(self.dropout, inplace=before in ("b", "c"))  # neither needs its own output again


class Gate(nn.Module):
    """x + activation(A h) * sigmoid(B h); one 1x1 convolution of twice the width has the weights of A and B."""

    def __init__(self, style: BlockStyle) -> None:
        super().__init__()
        self.conv = nn.Conv2d(style.channels, 2 * style.channels, kernel_size=1)
        self.activation = style.activation()
        self.nonlinearity = style.nonlinearity

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        if self.conv._forward_hooks:  # somebody wants to see what the convolution gives, as ``rescale_to_data``
            value, gate = self.conv(h).chunk(2, dim=1)
            return x + self.activation(value) * torch.sigmoid(gate)
        assert self.conv.bias is not None
        return gated_sum(self.nonlinearity, x, h, self.conv.weight, self.conv.bias)


class ResidualBlock(nn.Module):
    """x + gate(branch(x)), same shape in and out; there is no activation after the sum."""

    def __init__(self, style: BlockStyle, gated: bool) -> None:
        super().__init__()
        self.branch = nn.Sequential(*style.layers())
        self.gate = Gate(style) if gated else None

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.branch(x)
        return x + h if self.gate is None else self.gate(x, h)


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
