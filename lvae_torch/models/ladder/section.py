"""The ``[model]`` sections of ``family = ladder`` and ``family = hierarchical_vae``, and the models they describe."""

from collections.abc import Iterator
from typing import Literal

from lvae_torch.cfg.section import Fraction, PositiveInt, TupleOf
from lvae_torch.data.shapes import ImageShape
from lvae_torch.distributions import DiagonalGaussian, GaussianLikelihood
from lvae_torch.models.ladder.generative import RungSize
from lvae_torch.models.ladder.hierarchical_vae import HierarchicalVAE
from lvae_torch.models.ladder.ladder_vae import LadderVAE
from lvae_torch.models.ladder.mlp import DenseStyle
from lvae_torch.models.likelihoods.heads import Head, LikelihoodName, LikelihoodSection, Options, likelihood_head


class DenseSection(LikelihoodSection):
    """The keys that the ladder and its bottom-up baseline share: their generative model."""

    z_dims: TupleOf[PositiveInt] = (64, 32, 16, 8, 4)
    """Latent units of each rung, bottom to top; one entry per rung."""
    widths: TupleOf[PositiveInt] = (512, 256, 128, 64, 32)
    """Hidden units of the MLPs that lead into each rung (up) and out of it (down), bottom to top."""
    nonlinearity: Literal["leakyrelu", "tanh"] = "leakyrelu"
    """Activation of all hidden layers."""
    leak: Fraction = 0.1
    """Slope of leakyrelu below zero."""
    batch_norm: bool = True
    """Use batch normalisation in all hidden layers and in the linear heads of z (never in that of x)."""
    likelihood: LikelihoodName = "bernoulli"
    """p(x | z): bernoulli for binary data; gaussian is a density, here with a softplus variance."""
    n_mixtures: PositiveInt = 10
    """Components of the discretized mixture of logistics."""

    def problems(self) -> Iterator[str]:
        if len(self.z_dims) != len(self.widths):
            yield (
                f"z_dims has {len(self.z_dims)} entries and widths {len(self.widths)}; "
                "give both one entry per rung, bottom to top"
            )
        if not self.z_dims:
            yield "z_dims is empty; a model needs at least one rung"

    @property
    def sizes(self) -> tuple[RungSize, ...]:
        """Size of each rung, bottom to top."""
        return tuple(RungSize(z, width) for z, width in zip(self.z_dims, self.widths, strict=True))

    @property
    def style(self) -> DenseStyle:
        """Options that all layers share."""
        return DenseStyle(self.nonlinearity, self.leak, self.batch_norm)

    def head(self, channels: int, n_levels: int) -> Head:
        """The likelihood for ``channels`` colours."""
        if self.likelihood == "gaussian":  # a softplus variance, as in all Gaussians of this paper
            return Head(
                GaussianLikelihood.n_params(channels),
                lambda params: GaussianLikelihood(DiagonalGaussian.from_mean_and_softplus(params)),
                in_bits=False,
            )
        return likelihood_head(self.likelihood, channels, n_levels, Options(self.n_mixtures))


class HierarchicalVAESection(DenseSection):
    """[model]: a fully-connected VAE with several stochastic layers, inferred from the bottom up."""

    family: Literal["hierarchical_vae"] = "hierarchical_vae"
    """Kind of model; the other keys of this section depend on it."""

    def make(self, image_shape: ImageShape, n_levels: int) -> HierarchicalVAE:
        return HierarchicalVAE(image_shape, self.sizes, self.style, self.head(image_shape[0], n_levels))


class LadderSection(DenseSection):
    """[model]: the fully-connected Ladder VAE, with two options of the authors' code."""

    family: Literal["ladder"] = "ladder"
    """Kind of model; the other keys of this section depend on it."""
    upward_input: Literal["features", "mean"] = "features"
    """Input of the next rung's MLP on the way up: the hidden features, or only the mean (authors' only_mu_up)."""
    share_top_down: bool = True
    """Share one top-down path between prior and posterior; False gives each its own (ladder_share_params False)."""

    def make(self, image_shape: ImageShape, n_levels: int) -> LadderVAE:
        return LadderVAE(
            image_shape,
            self.sizes,
            self.style,
            self.head(image_shape[0], n_levels),
            narrow_upward=self.upward_input == "mean",
            share_top_down=self.share_top_down,
        )
