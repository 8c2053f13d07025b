"""Encoders and decoders of a VAE with one latent vector: dense ones, and convolutional ones for images.

Shapes: B batch, D latent units, W width.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from lvae_torch.data.shapes import ImageShape
from lvae_torch.models.geometry import crop_to, pad_to, padded_size
from lvae_torch.models.layout import keeps_layout, laid_out_as


class Block(nn.Sequential):
    """An affine layer and a ReLU."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer, nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        weight = self[0].weight
        assert isinstance(weight, Tensor)
        out: Tensor = super().forward(laid_out_as(weight, x))
        return out


class Centred(nn.Module):
    """Pixels in [0, 1] -> [-1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x - 1


class Flat(nn.Module):
    """(B, C, H, W) -> (B, CHW)."""

    def forward(self, h: Tensor) -> Tensor:
        return keeps_layout(h).flatten(1)


class Padded(nn.Module):
    """Pads images with zeros to ``size``, (height, width)."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return pad_to(x, self.size)


class Cropped(nn.Module):
    """Crops images to their middle of ``size``, (height, width)."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return crop_to(x, self.size)


def dense_encoder(image_shape: ImageShape, widths: Sequence[int], z_dim: int) -> nn.Sequential:
    """(B, C, H, W) -> (B, 2D), with hidden layers of these widths."""
    sizes = (prod(image_shape), *widths)
    return nn.Sequential(nn.Flatten(), *_hidden(sizes), nn.Linear(sizes[-1], 2 * z_dim))


def dense_decoder(image_shape: ImageShape, widths: Sequence[int], z_dim: int, n_params: int) -> nn.Sequential:
    """(B, D) -> (B, n_params, H, W), with hidden layers of these widths in reverse order."""
    sizes, out = (z_dim, *reversed(widths)), (n_params, *image_shape[1:])
    return nn.Sequential(*_hidden(sizes), nn.Linear(sizes[-1], prod(out)), nn.Unflatten(1, out))


def convolutional_encoder(image_shape: ImageShape, widths: Sequence[int], z_dim: int) -> nn.Sequential:
    """(B, C, H, W) -> (B, 2D): a convolution to the first width, then one that halves the image per further width."""
    size = padded_image(image_shape, widths)
    first = Block(nn.Conv2d(image_shape[0], widths[0], kernel_size=3, padding=1))
    halving = [Block(nn.Conv2d(a, b, kernel_size=3, stride=2, padding=1)) for a, b in pairwise(widths)]
    n_features = widths[-1] * prod(innermost(size, widths))
    return nn.Sequential(Padded(size), first, *halving, Flat(), nn.Linear(n_features, 2 * z_dim))


def convolutional_decoder(image_shape: ImageShape, widths: Sequence[int], z_dim: int, n_params: int) -> nn.Sequential:
    """(B, D) -> (B, n_params, H, W): the way back; it uses the last width but one twice, and not the last."""
    size = padded_image(image_shape, widths)
    channels = tuple(reversed(widths[:-1]))
    start = (channels[0], *innermost(size, widths))
    doubling = [
        Block(nn.ConvTranspose2d(a, b, kernel_size=4, stride=2, padding=1))
        for a, b in pairwise((channels[0], *channels))
    ]
    return nn.Sequential(
        Block(nn.Linear(z_dim, prod(start))),
        nn.Unflatten(1, start),
        *doubling,
        nn.Conv2d(channels[-1], n_params, kernel_size=3, padding=1),
        Cropped(image_shape[1:]),
    )


def padded_image(image_shape: ImageShape, widths: Sequence[int]) -> tuple[int, int]:
    """Height and width, padded so that they halve evenly once for each width but the first."""
    return padded_size(image_shape[1:], 2 ** (len(widths) - 1))


def innermost(size: tuple[int, int], widths: Sequence[int]) -> tuple[int, int]:
    """Height and width after all halvings."""
    return size[0] >> (len(widths) - 1), size[1] >> (len(widths) - 1)


def _hidden(sizes: Sequence[int]) -> list[Block]:
    return [Block(nn.Linear(a, b)) for a, b in pairwise(sizes)]
