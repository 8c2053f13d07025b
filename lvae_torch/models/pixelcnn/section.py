"""The ``[model]`` section of ``family = pixelcnn``, and the model it describes."""

from typing import Literal

from pydantic import model_validator

from lvae_torch.cfg.section import Fraction, PositiveInt, Section
from lvae_torch.errors import CfgError
from lvae_torch.models.likelihoods.heads import ImageShape
from lvae_torch.models.pixelcnn.model import PixelCNN
from lvae_torch.models.pixelcnn.networks import GatedNetwork, PlainNetwork


class PixelCNNSection(Section):
    """[model]: an autoregressive model of codes (see vqvae), or of other images of one channel and few levels."""

    family: Literal["pixelcnn"] = "pixelcnn"
    """Which kind of model; the other keys of this section depend on it."""
    gated: bool = False
    """Gated layers in two stacks, without the blind spot of the plain residual blocks."""
    width: PositiveInt = 128
    """Channels of every feature map."""
    layers: PositiveInt = 9
    """Residual blocks, or gated layers."""
    embedding: PositiveInt = 64
    """Length of the vector that stands for a level."""
    first_kernel: PositiveInt = 7
    """Kernel of the first convolution of a plain network; odd."""
    kernel: PositiveInt = 3
    """Kernel of all others; odd."""
    out_width: PositiveInt = 512
    """Channels of the last hidden layer."""
    dropout: Fraction = 0.0
    """Probability of dropping an activation inside a block in training."""

    @model_validator(mode="after")
    def _odd_kernels(self) -> "PixelCNNSection":
        problems = [
            f"{key} is {getattr(self, key)}; use an odd number, so that there is a middle"
            for key in ("first_kernel", "kernel")
            if getattr(self, key) % 2 == 0
        ]
        if self.gated and self.first_kernel != type(self).model_fields["first_kernel"].default:
            problems.append("first_kernel is for plain networks; with gated = True leave it out, and set kernel")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def build(section: PixelCNNSection, image_shape: ImageShape, n_levels: int) -> PixelCNN:
    """The model for images of ``image_shape`` (1, H, W) whose pixels take ``n_levels`` values.

    Raises:
        CfgError: if they have colours, or no levels.
    """
    if image_shape[0] != 1 or n_levels < 2:
        raise CfgError(
            f"[model] family = pixelcnn needs images of one channel in levels, but these have {image_shape[0]} "
            f"channels and {n_levels or 'no'} levels; use codes of a vqvae ([synthesis] codes_to), or grey images."
        )
    return PixelCNN(image_shape, n_levels, section.embedding, _network(section, n_levels))


def _network(section: PixelCNNSection, n_levels: int) -> PlainNetwork | GatedNetwork:
    sizes = (section.embedding, section.width, section.layers, n_levels)
    if section.gated:
        return GatedNetwork(*sizes, section.kernel, section.out_width, section.dropout)
    return PlainNetwork(*sizes, section.kernel, section.first_kernel, section.out_width, section.dropout)
