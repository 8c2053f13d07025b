"""The ``[model]`` section of ``family = spatial_lvae``, and the model it describes."""

from typing import Literal

from pydantic import model_validator

from lvae_torch.cfg.section import (
    Count,
    Fraction,
    Positive,
    PositiveInt,
    Section,
    TupleOf,
)
from lvae_torch.errors import CfgError
from lvae_torch.models.likelihoods.heads import ImageShape, likelihood_head
from lvae_torch.models.spatial_lvae.model import Ladder, SpatialLVAE, Stage
from lvae_torch.models.spatial_lvae.residual import BlockStyle


class SpatialLVAESection(Section):
    """[model]: a spatial ladder VAE. The defaults are what all published results of the family share."""

    family: Literal["spatial_lvae"] = "spatial_lvae"
    """Which kind of model; the other keys of this section depend on it."""
    z_channels: TupleOf[PositiveInt] = (32, 32, 32)
    """Channels of each latent map, bottom to top; as many entries as there are latent layers."""
    downsample: TupleOf[Count] = (1, 1, 1)
    """How often height and width halve on entering each layer, bottom to top."""
    initial_halving: bool = True
    """Halve the image once before the first layer."""
    n_filters: PositiveInt = 64
    """Width of every deterministic feature map."""
    blocks_per_layer: PositiveInt = 4
    """Residual blocks between two latent layers, on the way up and on the way down."""
    nonlinearity: Literal["elu", "relu", "leakyrelu", "selu"] = "elu"
    """Activation of all blocks."""
    residual_type: Literal["bacdbacd", "bacdbac", "cabdcabd"] = "bacdbacd"
    """Order inside a residual block: b batch norm, a activation, c convolution, d dropout."""
    batch_norm: bool = True
    """Batch normalisation inside the blocks."""
    dropout: Fraction = 0.2
    """Probability of dropping a channel in training; 0 leaves dropout out."""
    gated: bool = True
    """Gate each residual branch."""
    skip: bool = True
    """Let the features of the layer above pass around z."""
    merge: Literal["residual", "linear"] = "residual"
    """How bottom-up and top-down features become the posterior's input."""
    learn_top_prior: bool = True
    """Learn mean and variance of the top prior; otherwise it is a standard normal."""
    data_dependent_init: bool = True
    """Scale the initial weights so that every layer starts with outputs of std 0.1 on the first batch."""
    max_log_std: Positive | None = 10.0
    """Bound on |log std| of priors and posteriors, against overflow; None for no bound."""
    likelihood: Literal["bernoulli", "gaussian", "discretized_logistic", "discretized_logistic_mixture"] = "bernoulli"
    """p(x | z). Bernoulli for binary data, the discretized ones for pixels; the Gaussian is a density."""
    n_mixtures: PositiveInt = 10
    """Components of the discretized mixture of logistics."""

    @model_validator(mode="after")
    def _lists_agree(self) -> "SpatialLVAESection":
        if len(self.z_channels) != len(self.downsample):
            raise ValueError(
                f"z_channels has {len(self.z_channels)} entries and downsample {len(self.downsample)}; "
                "give both one entry per latent layer."
            )
        if not self.z_channels:
            raise ValueError("z_channels is empty; a model needs at least one latent layer.")
        if max(self.downsample) > self.blocks_per_layer:
            raise ValueError(
                f"downsample halves {max(self.downsample)} times in one layer of {self.blocks_per_layer} blocks; "
                "each halving needs a block of its own: raise blocks_per_layer or spread the halvings."
            )
        return self


def build(section: SpatialLVAESection, image_shape: ImageShape, n_levels: int) -> SpatialLVAE:
    """The model for images of ``image_shape`` (C, H, W) whose pixels take ``n_levels`` values.

    Raises:
        CfgError: if the settings cannot fit such images.
    """
    _check_size(section, image_shape)
    style = BlockStyle(
        section.n_filters, section.nonlinearity, section.residual_type, section.batch_norm, section.dropout
    )
    ladder = Ladder(
        style,
        blocks_per_layer=section.blocks_per_layer,
        gated=section.gated,
        use_skip=section.skip,
        linear_merge=section.merge == "linear",
        learn_top_prior=section.learn_top_prior,
        initial_halving=section.initial_halving,
        max_log_std=section.max_log_std,
    )
    stages = tuple(Stage(z, d) for z, d in zip(section.z_channels, section.downsample, strict=True))
    head = likelihood_head(section.likelihood, image_shape[0], n_levels, section.n_mixtures)
    return SpatialLVAE(image_shape, stages, ladder, head, data_dependent_init=section.data_dependent_init)


def _check_size(section: SpatialLVAESection, image_shape: ImageShape) -> None:
    factor = 2 ** (sum(section.downsample) + int(section.initial_halving))
    _, height, width = image_shape
    if factor >= 2 * min(height, width):
        raise CfgError(
            f"[model] downsample (with initial_halving) shrinks images by {factor}, but they are only "
            f"{height}x{width}; the top latent would be mostly padding. Take halvings out of downsample."
        )
