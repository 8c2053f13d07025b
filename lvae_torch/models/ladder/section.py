"""The ``[model]`` sections of ``family = ladder`` and ``family = hierarchical_vae``, and the models they describe."""

from typing import Literal

from pydantic import model_validator

from lvae_torch.cfg.section import (
    Fraction,
    PositiveInt,
    Section,
    TupleOf,
)
from lvae_torch.distributions import DiagonalGaussian, GaussianLikelihood
from lvae_torch.models.ladder.generative import RungSize
from lvae_torch.models.ladder.hierarchical_vae import HierarchicalVAE
from lvae_torch.models.ladder.ladder_vae import LadderVAE
from lvae_torch.models.ladder.mlp import DenseStyle
from lvae_torch.models.likelihoods.heads import Head, ImageShape, likelihood_head


class DenseSection(Section):
    """What the fully-connected ladder and its bottom-up baseline have in common: the generative model."""

    family: str
    """Which kind of model; the other keys of this section depend on it."""
    z_dims: TupleOf[PositiveInt] = (64, 32, 16, 8, 4)
    """Latent units of each rung, bottom to top; as many entries as there are rungs."""
    widths: TupleOf[PositiveInt] = (512, 256, 128, 64, 32)
    """Hidden units of the MLPs up into each rung and down out of it, bottom to top."""
    nonlinearity: Literal["leakyrelu", "tanh"] = "leakyrelu"
    """Activation of all hidden layers."""
    leak: Fraction = 0.1
    """Slope of leakyrelu below zero."""
    batch_norm: bool = True
    """Batch normalisation of all hidden layers and of the linear heads of means and variances (never of x)."""
    likelihood: Literal["bernoulli", "gaussian", "discretized_logistic", "discretized_logistic_mixture"] = "bernoulli"
    """p(x | z). Bernoulli for binary data; the Gaussian, whose variance is a softplus, is a density."""
    n_mixtures: PositiveInt = 10
    """Components of the discretized mixture of logistics."""

    @model_validator(mode="after")
    def _rungs_agree(self) -> "DenseSection":
        if len(self.z_dims) != len(self.widths):
            raise ValueError(
                f"z_dims has {len(self.z_dims)} entries and widths {len(self.widths)}; "
                "give both one entry per rung, bottom to top."
            )
        if not self.z_dims:
            raise ValueError("z_dims is empty; a model needs at least one rung.")
        return self


class HierarchicalVAESection(DenseSection):
    """[model]: the fully-connected VAE with several stochastic layers, inferred from the bottom up."""

    family: Literal["hierarchical_vae"] = "hierarchical_vae"
    """Which kind of model; the other keys of this section depend on it."""


class LadderSection(DenseSection):
    """[model]: the fully-connected Ladder VAE, with two options of the authors' code."""

    family: Literal["ladder"] = "ladder"
    """Which kind of model; the other keys of this section depend on it."""
    upward_input: Literal["features", "mean"] = "features"
    """What goes up to the next rung's MLP: the hidden features, or only the narrow mean (authors' only_mu_up)."""
    share_top_down: bool = True
    """One top-down path for prior and posterior; otherwise each its own (authors' ladder_share_params False)."""


def build_ladder(section: LadderSection, image_shape: ImageShape, n_levels: int) -> LadderVAE:
    """The model for images of ``image_shape`` (C, H, W) whose pixels take ``n_levels`` values.

    Raises:
        CfgError: if the likelihood does not fit such images.
    """
    return LadderVAE(
        image_shape,
        _sizes(section),
        _style(section),
        _head(section, image_shape, n_levels),
        narrow_upward=section.upward_input == "mean",
        share_top_down=section.share_top_down,
    )


def build_hierarchical(section: HierarchicalVAESection, image_shape: ImageShape, n_levels: int) -> HierarchicalVAE:
    """The same for the bottom-up model."""
    return HierarchicalVAE(image_shape, _sizes(section), _style(section), _head(section, image_shape, n_levels))


def _sizes(section: DenseSection) -> tuple[RungSize, ...]:
    return tuple(RungSize(z, width) for z, width in zip(section.z_dims, section.widths, strict=True))


def _style(section: DenseSection) -> DenseStyle:
    return DenseStyle(section.nonlinearity, section.leak, section.batch_norm)


def _head(section: DenseSection, image_shape: ImageShape, n_levels: int) -> Head:
    channels = image_shape[0]
    if section.likelihood == "gaussian":  # as every Gaussian of this paper: a softplus variance
        return Head(
            GaussianLikelihood.n_params(channels),
            lambda params: GaussianLikelihood(DiagonalGaussian.from_mean_and_softplus(params)),
            in_bits=False,
        )
    return likelihood_head(section.likelihood, channels, n_levels, section.n_mixtures)
