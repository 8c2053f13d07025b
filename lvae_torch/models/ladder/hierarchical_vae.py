"""The hierarchical VAE that the Ladder VAE is measured against: the same generative model, inferred from the bottom up.

q(z_1 | x) times q(z_{i+1} | z_i): every rung is drawn from what was drawn below it, while p(z_i | z_{i+1}) needs the
draw above. So a pass with images goes up first, drawing as the source says, and then down with these draws.
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
    """q(z_i | z_{i-1}) after z_i was drawn from it, and the rung above was drawn from z_i."""

    z: Tensor  # (B, D)

    def rsample(self, temperature: float = 1.0) -> Tensor:
        """The draw itself: there is no second one that the rung above would agree with."""
        return self.z

    def kl(self, p: DiagonalGaussian) -> Tensor:
        """log q - log p at the draw, element-wise.

        The closed form would be wrong here, not just less noisy: given z_{i+1}, on which p depends, z_i no longer
        follows q(z_i | z_{i-1}). The mean over draws is the KL's share of the ELBO; a single one can be negative.
        """
        return self.log_prob(self.z) - p.log_prob(self.z)


class HierarchicalVAE(Model):
    """Stochastic rungs, each inferred from the one below. ``sizes`` run bottom to top; latents come out top first."""

    blocks = (MLP,)

    def __init__(self, image_shape: ImageShape, sizes: Sequence[RungSize], style: DenseStyle, head: Head) -> None:
        super().__init__(image_shape, head.in_bits)
        self.generative = GenerativeLadder(image_shape, sizes, style, head)
        n_ins = (prod(image_shape), *(size.z_dim for size in sizes[:-1]))
        self.bottom_up = nn.ModuleList(
            gaussian_map(style, n_in, size.width, size.z_dim) for n_in, size in zip(n_ins, sizes, strict=True)
        )

    def encode(self, x: Tensor) -> Features:
        """All that does not depend on a draw: the parameters of q(z_1 | x), (B, 2D).

        Raises:
            ValueError: if x has another shape than the model was built for.
        """
        self.check_images(x)
        return (self.bottom_up[0](x.flatten(1)),)

    def decode(self, features: Features | None, source: Source, n: int | None = None) -> Output:
        """Up with draws, then the one top-down pass; ``n`` images where there are no features.

        The source is asked for a rung below the top twice: on the way up, where q stands in for the prior that nobody
        knows yet, and on the way down, where a sample of q is the draw of the way up.
        """
        if features is None:
            return self.generative(source, n)
        posteriors = self._draw_upwards(features[0], source)
        return self.generative(source, features[0].shape[0], lambda i, prior, z_above: posteriors[i])

    def _draw_upwards(self, params: Tensor, source: Source) -> tuple[DiagonalGaussian, ...]:
        """q of each rung given the draw below it, top first; nothing is drawn at the top yet."""
        q = gaussian(params)  #                                                               q(z_1 | x)
        drawn: list[DiagonalGaussian] = []
        for i in range(len(self.bottom_up) - 1, 0, -1):
            z = source(i, q, q)  #                                                            (B, D)
            drawn.append(Drawn(q.mean, q.log_std, z))
            q = gaussian(self.bottom_up[-i](z.to(params.dtype)))  #                           q(z_above | z_i)
        return (q, *reversed(drawn))

    def latent_shapes(self) -> tuple[tuple[int], ...]:
        """(D,) of each latent, top rung first, whatever the image."""
        return self.generative.latent_shapes
