"""The ``[model]`` section of ``family = spatial_lvae``, and the model it describes."""

from collections.abc import Iterator
from typing import Literal

from lvae_torch.cfg.section import Count, Fraction, Positive, PositiveInt, TupleOf
from lvae_torch.data.shapes import ImageShape
from lvae_torch.models.classes import UNCONDITIONAL, Classes, ConditionalSection
from lvae_torch.models.likelihoods.heads import LikelihoodName, Options, likelihood_head
from lvae_torch.models.spatial_lvae.model import Ladder, SpatialLVAE, Stage
from lvae_torch.models.spatial_lvae.residual import BlockStyle


class SpatialLVAESection(ConditionalSection):
    """[model]: a spatial ladder VAE. The defaults are those that all published results share."""

    family: Literal["spatial_lvae"] = "spatial_lvae"
    """Kind of model; the other keys of this section depend on it."""
    z_channels: TupleOf[PositiveInt] = (32, 32, 32)
    """Channels of each latent map, bottom to top; one entry per latent layer."""
    downsample: TupleOf[Count] = (1, 1, 1)
    """How often height and width halve on the way up into each layer, bottom to top."""
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
    """Use batch normalisation inside the blocks."""
    dropout: Fraction = 0.2
    """Probability of dropping a channel during training; 0 for no dropout."""
    gated: bool = True
    """Gate each residual branch."""
    skip: bool = True
    """Let the features of the layer above bypass z (skip connection)."""
    merge: Literal["residual", "linear"] = "residual"
    """How bottom-up and top-down features are merged into the posterior's input."""
    learn_top_prior: bool = True
    """Learn mean and variance of the top prior; False keeps a standard normal."""
    data_dependent_init: bool = True
    """Scale the initial weights so that every layer starts with outputs of std 0.1 on the first batch."""
    max_log_std: Positive | None = 10.0
    """Bound on |log std| of priors and posteriors, which prevents overflow; None for no bound."""
    likelihood: LikelihoodName = "bernoulli"
    """p(x | z): bernoulli for binary data, the discretized ones for pixels, gaussian for continuous values."""
    n_mixtures: PositiveInt = 10
    """Components of the discretized mixture of logistics."""

    def problems(self) -> Iterator[str]:
        if len(self.z_channels) != len(self.downsample):
            yield (
                f"z_channels has {len(self.z_channels)} entries and downsample {len(self.downsample)}; "
                "give both one entry per latent layer"
            )
        if not self.z_channels:
            yield "z_channels is empty; a model needs at least one latent layer"
        if max(self.downsample, default=0) > self.blocks_per_layer:
            yield (
                f"downsample halves {max(self.downsample)} times in one layer of {self.blocks_per_layer} blocks; "
                "each halving needs a block of its own: raise blocks_per_layer or spread the halvings"
            )

    def misfits(self, image_shape: ImageShape, n_levels: int) -> Iterator[str]:
        yield from super().misfits(image_shape, n_levels)
        factor = 2 ** (sum(self.downsample) + int(self.initial_halving))
        _, height, width = image_shape
        if factor >= 2 * min(height, width):
            yield (
                f"downsample (with initial_halving) shrinks images by {factor}, but they are only {height}x{width}; "
                "the top latent would be mostly padding. Take halvings out of downsample"
            )

    def make(self, image_shape: ImageShape, n_levels: int, classes: Classes = UNCONDITIONAL) -> SpatialLVAE:
        ladder = Ladder(
            BlockStyle(self.n_filters, self.nonlinearity, self.residual_type, self.batch_norm, self.dropout),
            blocks_per_layer=self.blocks_per_layer,
            gated=self.gated,
            use_skip=self.skip,
            linear_merge=self.merge == "linear",
            learn_top_prior=self.learn_top_prior,
            initial_halving=self.initial_halving,
            max_log_std=self.max_log_std,
            classes=classes,
        )
        stages = tuple(Stage(z, d) for z, d in zip(self.z_channels, self.downsample, strict=True))
        head = likelihood_head(self.likelihood, image_shape[0], n_levels, Options(self.n_mixtures))
        model = SpatialLVAE(image_shape, stages, ladder, head, data_dependent_init=self.data_dependent_init)
        if self.likelihood.startswith("discretized"):
            options = Options(self.n_mixtures, reference=True)
            model.published = likelihood_head(self.likelihood, image_shape[0], n_levels, options).likelihood
        return model
