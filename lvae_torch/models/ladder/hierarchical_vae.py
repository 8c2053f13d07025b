"""The hierarchical VAE that the Ladder VAE is compared with: the same generative model, inferred from the bottom up.

q(z | x) = q(z_1 | x) q(z_2 | z_1) ... q(z_L | z_{L-1}) draws each rung from the draw below, while p(z_i | z_{i+1})
needs the draw above. So a pass with images first goes up and draws, and then goes down with these draws.
Shapes: B batch, D latent units of a rung.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch import Tensor, nn

from lvae_torch.data.shapes import ImageShape
from lvae_torch.distributions.gaussian import DiagonalGaussian
from lvae_torch.models.contract import Features, Model, Output, Source
from lvae_torch.models.ladder.generative import GenerativeLadder, RungSize, gaussian, gaussian_map
from lvae_torch.models.ladder.mlp import MLP, DenseStyle
from lvae_torch.models.likelihoods.heads import Head


@dataclass(frozen=True)
class Drawn(DiagonalGaussian):
    """q(z_i | z_{i-1}) after z_i was drawn from it and z_{i+1} was drawn given z_i."""

    z: Tensor  # (B, D)

    def rsample(self, temperature: float = 1.0) -> Tensor:
        """The draw itself; z_{i+1} depends on it, so another draw would not fit."""
        return self.z

    def kl(self, p: DiagonalGaussian) -> Tensor:
        """log q - log p at the draw, element-wise.

        The closed form would be wrong here: p depends on z_{i+1}, and given z_{i+1}, z_i no longer follows
        q(z_i | z_{i-1}). The mean over draws is the KL term of the ELBO; a single value can be negative.
        """
        return self.log_prob(self.z) - p.log_prob(self.z)


class HierarchicalVAE(Model):
    """Stochastic rungs, each inferred from the one below. ``sizes`` run bottom to top; latents are listed top first."""

    blocks = (MLP,)

    def __init__(self, image_shape: ImageShape, sizes: Sequence[RungSize], style: DenseStyle, head: Head) -> None:
        super().__init__(image_shape, head.in_bits)
        self.generative = GenerativeLadder(image_shape, sizes, style, head)
        n_ins = (prod(image_shape), *(size.z_dim for size in sizes[:-1]))
        self.bottom_up = nn.ModuleList(
            gaussian_map(style, n_in, size.width, size.z_dim) for n_in, size in zip(n_ins, sizes, strict=True)
        )

    def encode(self, x: Tensor) -> Features:
        """The parameters of q(z_1 | x), (B, 2D); all else depends on a draw.

        Raises:
            ValueError: if x has another shape than the model was built for.
        """
        self.check_images(x)
        return (self.bottom_up[0](x.flatten(1)),)

    def decode(self, features: Features | None, source: Source, n: int | None = None) -> Output:
        """Draw on the way up, then run the top-down pass; without features it generates ``n`` images.

        The source is called twice for each rung below the top: on the way up, where the prior is not known yet and q
        takes its place, and on the way down, where a sample of q is the draw from the way up.
        """
        if features is None:
            return self.generative(source, n)
        posteriors = self._draw_upwards(features[0], source)
        return self.generative(source, features[0].shape[0], lambda i, prior, z_above: posteriors[i])

    def _draw_upwards(self, params: Tensor, source: Source) -> tuple[DiagonalGaussian, ...]:
        """q of each rung given the draw below it, top first; the top itself is not drawn yet."""
        q = gaussian(params)  #                                                               q(z_1 | x)
        drawn: list[DiagonalGaussian] = []
        for i in range(len(self.bottom_up) - 1, 0, -1):
            z = source(i, q, q)  #                                                            (B, D)
            drawn.append(Drawn(q.mean, q.log_std, z))
            q = gaussian(self.bottom_up[-i](z.to(params.dtype)))  #                           q(z_above | z_i)
        return (q, *reversed(drawn))

    def latent_shapes(self) -> tuple[tuple[int], ...]:
        """(D,) of each latent, top rung first."""
        return self.generative.latent_shapes
