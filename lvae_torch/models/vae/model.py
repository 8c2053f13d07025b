"""The VAE with one latent vector: encoder, decoder and prior (Kingma & Welling 2014, https://arxiv.org/abs/1312.6114).

Shapes: B batch, D latent units.
"""

from collections.abc import Callable

from torch import Tensor, nn

from lvae_torch.data.shapes import ImageShape
from lvae_torch.distributions.gaussian import DiagonalGaussian
from lvae_torch.distributions.precision import widened
from lvae_torch.models.contract import Features, Latent, Model, Output, Prior, Source, batch_size
from lvae_torch.models.likelihoods.heads import Head
from lvae_torch.models.vae.networks import Block

PriorOf = Callable[[Tensor], Prior]  # zeros (B, D) -> p(z) for B draws


def standard_normal(zeros: Tensor) -> DiagonalGaussian:
    """N(0, I) for B draws; zeros is (B, D)."""
    return DiagonalGaussian(zeros, zeros.clone())  # two, for a compiler takes no tensor twice


class VAE(Model):
    """p(z) p(x | z), inferred by q(z | x): a VAE if the prior is N(0, I), a VLAE if it is a flow."""

    blocks = (Block,)

    def __init__(
        self,
        image_shape: ImageShape,
        z_dim: int,
        encoder: nn.Module,
        decoder: nn.Module,
        head: Head,
        prior: PriorOf = standard_normal,
    ) -> None:
        """``encoder``: (B, C, H, W) -> (B, 2D); ``decoder``: (B, D) -> (B, head.n_params, H, W)."""
        super().__init__(image_shape, head.in_bits)
        self.z_dim = z_dim
        self.encoder = encoder
        self.decoder = decoder
        self.prior = prior
        self.likelihood = head.likelihood

    def encode(self, x: Tensor) -> Features:
        """Mean and log standard deviation of q(z | x), (B, 2D).

        Raises:
            ValueError: if x has another shape than the model was built for.
        """
        self.check_images(x)
        return (self.encoder(x),)

    def decode(self, features: Features | None, source: Source, n: int | None = None) -> Output:
        """The top-down pass; without features it generates ``n`` images."""
        weight = next(self.decoder.parameters())
        zeros = weight.new_zeros(batch_size(features, n), self.z_dim)
        p = self.prior(widened(zeros))  #                                                           p(z)
        q = None if features is None else DiagonalGaussian.from_mean_and_log_std(features[0])  #    q(z | x)
        z = source(0, p, q)  #                                                                      (B, D)
        params = self.decoder(z.to(weight.dtype))  #                                                (B, n_params, H, W)
        return Output(self.likelihood(params), (Latent(z, p, q),))

    def latent_shapes(self) -> tuple[tuple[int], ...]:
        """(D,), the shape of the one latent."""
        return ((self.z_dim,),)
