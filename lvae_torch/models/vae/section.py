"""The ``[model]`` sections of ``family = vae`` and ``family = vlae``, and the models they describe."""

from collections.abc import Iterator
from typing import Literal

from torch import nn

from lvae_torch.cfg.section import PositiveInt, TupleOf
from lvae_torch.data.shapes import ImageShape
from lvae_torch.models.likelihoods.heads import (
    GaussianStd,
    Head,
    LikelihoodName,
    LikelihoodSection,
    Options,
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


class OneLatentSection(LikelihoodSection):
    """The keys that VAE and VLAE share: all but those of the prior."""

    z_dim: PositiveInt = 16
    """Latent units."""
    network: Literal["dense", "convolutional"] = "convolutional"
    """Kind of encoder and decoder: fully connected (for points of the plane), or convolutional."""
    widths: TupleOf[PositiveInt] = (32, 64, 128, 256)
    """Hidden units or channels of each layer from x to z; each convolution but the first halves the image."""
    likelihood: LikelihoodName = "recon_sse"
    """p(x | z). recon_sse is a sum of squared errors on [-1, 1], which has no bits per dimension."""
    std: GaussianStd = "per_output"
    """Std of gaussian: per_output from the network, one learned for all, the optimal one per batch, or a number."""
    n_mixtures: PositiveInt = 10
    """Components of the discretized mixture of logistics."""

    def problems(self) -> Iterator[str]:
        if len(self.widths) < 2 and self.network == "convolutional":
            yield "widths needs at least two entries for convolutional networks: [32, 64]"
        elif not self.widths:
            yield "widths is empty; give the hidden units of at least one layer"
        yield from misplaced_std(self.std, self.likelihood)

    def head(self, image_shape: ImageShape, n_levels: int) -> Head:
        """The likelihood for the image's colours."""
        options = Options(self.n_mixtures, std=self.std)
        return likelihood_head(self.likelihood, image_shape[0], n_levels, options)

    def networks(self, image_shape: ImageShape, n_levels: int, head: Head) -> tuple[nn.Module, nn.Module]:
        """Encoder and decoder; the same seed gives a VAE and a VLAE the same weights."""
        make_encoder, make_decoder = {
            "dense": (dense_encoder, dense_decoder),
            "convolutional": (convolutional_encoder, convolutional_decoder),
        }[self.network]
        encoder = make_encoder(image_shape, self.widths, self.z_dim)
        decoder = make_decoder(image_shape, self.widths, self.z_dim, head.n_params)
        return nn.Sequential(Centred(), encoder) if n_levels else encoder, decoder


class VAESection(OneLatentSection):
    """[model]: a VAE with one latent vector and a standard normal prior."""

    family: Literal["vae"] = "vae"
    """Kind of model; the other keys of this section depend on it."""

    def make(self, image_shape: ImageShape, n_levels: int) -> VAE:
        head = self.head(image_shape, n_levels)
        return VAE(image_shape, self.z_dim, *self.networks(image_shape, n_levels, head), head)


class VLAESection(OneLatentSection):
    """[model]: a VAE with one latent vector and an autoregressive-flow prior."""

    family: Literal["vlae"] = "vlae"
    """Kind of model; the other keys of this section depend on it."""
    prior_widths: TupleOf[PositiveInt] = (512, 512)
    """Hidden units of each layer of the prior's MADE."""
    bound_log_scale: bool = True
    """Keep the prior's scales between 1/e and e by a tanh; False leaves them free."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if not self.prior_widths:
            yield "prior_widths is empty; give the hidden units of at least one layer"

    def make(self, image_shape: ImageShape, n_levels: int) -> VAE:
        head = self.head(image_shape, n_levels)
        networks = self.networks(image_shape, n_levels, head)
        prior = FlowPrior(self.z_dim, self.prior_widths, self.bound_log_scale)
        return VAE(image_shape, self.z_dim, *networks, head, prior)
