"""The ``[model]`` sections of ``family = vae`` and ``family = vlae``, and the models they describe."""

from collections.abc import Iterator
from typing import Literal

from pydantic import model_validator
from torch import nn

from lvae_torch.cfg.section import PositiveInt, Section, TupleOf
from lvae_torch.models.likelihoods.heads import (
    GaussianStd,
    Head,
    ImageShape,
    likelihood_head,
    misplaced_std,
)
from lvae_torch.models.vae.flow_prior import FlowPrior
from lvae_torch.models.vae.model import VAE
from lvae_torch.models.vae.networks import (
    Centred,
    convolutional_decoder,
    convolutional_encoder,
    dense_decoder,
    dense_encoder,
)


class OneLatentSection(Section):
    """What both have in common: all but the prior."""

    family: str
    """Which kind of model; the other keys of this section depend on it."""
    z_dim: PositiveInt = 16
    """Latent units."""
    network: Literal["dense", "convolutional"] = "convolutional"
    """Kind of both networks: fully connected (for points of the plane), or convolutional."""
    widths: TupleOf[PositiveInt] = (32, 64, 128, 256)
    """Hidden units, or channels, of each layer from x to z; each but the first of the channels halves the image."""
    likelihood: Literal[
        "recon_sse", "bernoulli", "gaussian", "discretized_logistic", "discretized_logistic_mixture"
    ] = "recon_sse"
    """p(x | z). recon_sse: a sum of squared errors on [-1, 1] instead, of which there are no bits per dimension."""
    std: GaussianStd = "per_output"
    """gaussian: one from the network for each value, one learned for all, the likeliest for the batch, or a number."""
    n_mixtures: PositiveInt = 10
    """Components of the discretized mixture of logistics."""

    @model_validator(mode="after")
    def _fit_together(self) -> "OneLatentSection":
        if problems := list(self._problems()):
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        if len(self.widths) < 2 and self.network == "convolutional":
            yield "widths needs at least two entries for convolutional networks: [32, 64]"
        elif not self.widths:
            yield "widths is empty; give the hidden units of at least one layer"
        yield from misplaced_std(self.std, self.likelihood)


class VAESection(OneLatentSection):
    """[model]: a VAE with one latent vector and a standard normal prior."""

    family: Literal["vae"] = "vae"
    """Which kind of model; the other keys of this section depend on it."""


class VLAESection(OneLatentSection):
    """[model]: the same with an autoregressive-flow prior."""

    family: Literal["vlae"] = "vlae"
    """Which kind of model; the other keys of this section depend on it."""
    prior_widths: TupleOf[PositiveInt] = (512, 512)
    """Hidden units of each layer of the prior's masked network."""
    bound_log_scale: bool = True
    """Keep the prior's scales within a factor e of one (a tanh); otherwise they are free."""

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if not self.prior_widths:
            yield "prior_widths is empty; give the hidden units of at least one layer"


def build_vae(section: VAESection, image_shape: ImageShape, n_levels: int) -> VAE:
    """The model for images of ``image_shape`` (C, H, W) whose pixels take ``n_levels`` values, 0 for points.

    Raises:
        CfgError: if the likelihood does not fit such images.
    """
    head = _head(section, image_shape, n_levels)
    return VAE(image_shape, section.z_dim, *_networks(section, image_shape, n_levels, head), head)


def build_vlae(section: VLAESection, image_shape: ImageShape, n_levels: int) -> VAE:
    """The same with the flow prior."""
    head = _head(section, image_shape, n_levels)
    networks = _networks(section, image_shape, n_levels, head)
    prior = FlowPrior(section.z_dim, section.prior_widths, section.bound_log_scale)
    return VAE(image_shape, section.z_dim, *networks, head, prior)


def _head(section: OneLatentSection, image_shape: ImageShape, n_levels: int) -> Head:
    return likelihood_head(section.likelihood, image_shape[0], n_levels, section.n_mixtures, std=section.std)


def _networks(
    section: OneLatentSection, image_shape: ImageShape, n_levels: int, head: Head
) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder; one seed gives a VAE and a VLAE the same weights."""
    make_encoder, make_decoder = {
        "dense": (dense_encoder, dense_decoder),
        "convolutional": (convolutional_encoder, convolutional_decoder),
    }[section.network]
    encoder = make_encoder(image_shape, section.widths, section.z_dim)
    decoder = make_decoder(image_shape, section.widths, section.z_dim, head.n_params)
    return nn.Sequential(Centred(), encoder) if n_levels else encoder, decoder
