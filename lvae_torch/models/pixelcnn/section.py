"""The ``[model]`` section of ``family = pixelcnn``, and the model it describes."""

from collections.abc import Iterator
from typing import Literal

from lvae_torch.cfg.section import Fraction, PositiveInt
from lvae_torch.data.shapes import ImageShape
from lvae_torch.models.pixelcnn.model import PixelCNN
from lvae_torch.models.pixelcnn.networks import GatedNetwork, PlainNetwork
from lvae_torch.models.section import ModelSection


class PixelCNNSection(ModelSection):
    """[model]: an autoregressive model of codes (see vqvae), or of other images with one channel and few levels."""

    family: Literal["pixelcnn"] = "pixelcnn"
    """Kind of model; the other keys of this section depend on it."""
    gated: bool = False
    """Use gated layers in two stacks, which have no blind spot, instead of plain residual blocks."""
    width: PositiveInt = 128
    """Channels of every feature map."""
    layers: PositiveInt = 9
    """Number of residual blocks, or of gated layers."""
    embedding: PositiveInt = 64
    """Length of the vector that represents a level."""
    first_kernel: PositiveInt = 7
    """Kernel size of the first convolution of a plain network; odd."""
    kernel: PositiveInt = 3
    """Kernel size of all other convolutions; odd."""
    out_width: PositiveInt = 512
    """Channels of the last hidden layer."""
    dropout: Fraction = 0.0
    """Probability of dropping an activation inside a block during training."""

    def problems(self) -> Iterator[str]:
        for key in ("first_kernel", "kernel"):
            if getattr(self, key) % 2 == 0:
                yield f"{key} is {getattr(self, key)}; use an odd number, so that there is a middle"
        if self.gated and self.first_kernel != type(self).model_fields["first_kernel"].default:
            yield "first_kernel is for plain networks; with gated = True leave it out, and set kernel"

    def misfits(self, image_shape: ImageShape, n_levels: int) -> Iterator[str]:
        if image_shape[0] != 1 or n_levels < 2:
            yield (
                f"family = pixelcnn needs images of one channel in levels, but these have {image_shape[0]} channels "
                f"and {n_levels or 'no'} levels; use codes of a vqvae ([synthesis] codes_to), or grey images"
            )

    def make(self, image_shape: ImageShape, n_levels: int) -> PixelCNN:
        return PixelCNN(image_shape, n_levels, self.embedding, _network(self, n_levels))


def _network(section: PixelCNNSection, n_levels: int) -> PlainNetwork | GatedNetwork:
    sizes = (section.embedding, section.width, section.layers, n_levels)
    if section.gated:
        return GatedNetwork(*sizes, section.kernel, section.out_width, section.dropout)
    return PlainNetwork(*sizes, section.kernel, section.first_kernel, section.out_width, section.dropout)
