"""p(x, z) of the Ladder VAE and of its bottom-up baseline, which share one generative model.

p(x, z) = p(x | z_1) p(z_1 | z_2) ... p(z_{L-1} | z_L) N(z_L; 0, I). Every map is an MLP with linear heads, every
Gaussian is diagonal with a softplus variance (Sonderby et al. 2016, https://arxiv.org/abs/1602.02282).
Shapes of one rung: B batch, D latent units, W width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from lvae_torch.data.shapes import ImageShape
from lvae_torch.distributions.gaussian import DiagonalGaussian
from lvae_torch.distributions.precision import widened
from lvae_torch.models.contract import Latent, Output, Source, batch_size
from lvae_torch.models.ladder.mlp import MLP, DenseStyle
from lvae_torch.models.likelihoods.heads import Head

Posterior = Callable[[int, DiagonalGaussian, Tensor | None], DiagonalGaussian]  # (i, prior, z_above) -> q
gaussian = DiagonalGaussian.from_mean_and_softplus  # (B, 2D) -> mean and log std, each (B, D)


@dataclass(frozen=True)
class RungSize:
    """One latent layer and the MLPs below it."""

    z_dim: int
    width: int
    """Width of both hidden layers of the MLP that leads up into this rung, and of the one that leads down from it."""


def gaussian_head(style: DenseStyle, width: int, z_dim: int) -> nn.Sequential:
    """(B, W) -> (B, 2D): one linear layer for the mean and for the argument of the softplus variance."""
    bias = torch.cat([torch.zeros(z_dim), torch.ones(z_dim)])  # as published
    return nn.Sequential(*style.linear(width, 2 * z_dim, bias=bias))


def gaussian_map(style: DenseStyle, n_in: int, width: int, z_dim: int) -> nn.Sequential:
    """(B, n_in) -> (B, 2D): an MLP and its Gaussian head."""
    return nn.Sequential(MLP(style, n_in, width), gaussian_head(style, width, z_dim))


def top_down_maps(style: DenseStyle, sizes: Sequence[RungSize]) -> nn.ModuleList:
    """The maps from z_{i+1} to z_i, top first; ``sizes`` run bottom to top."""
    return nn.ModuleList(
        gaussian_map(style, above.z_dim, above.width, below.z_dim) for above, below in pairwise(reversed(sizes))
    )


class GenerativeLadder(nn.Module):
    """The top-down pass of both families. ``sizes`` run bottom to top; latents are listed top first."""

    def __init__(self, image_shape: ImageShape, sizes: Sequence[RungSize], style: DenseStyle, head: Head) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.latent_shapes = tuple((size.z_dim,) for size in reversed(sizes))
        self.priors = top_down_maps(style, sizes)
        bottom = sizes[0]
        self.mlp = MLP(style, bottom.z_dim, bottom.width)
        self.head = nn.Linear(bottom.width, head.n_params * prod(image_shape[1:]))  # never normalised
        nn.init.xavier_normal_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._likelihood = head.likelihood

    def forward(self, source: Source, n: int | None, posterior: Posterior | None = None) -> Output:
        """Pass ``n`` images down; ``posterior`` gives q(z_i | ...) if images were encoded."""
        n = batch_size(None, n)
        above: Tensor | None = None
        latents: list[Latent] = []
        for i in range(len(self.latent_shapes)):
            p = self._standard_normal(n) if above is None else gaussian(self.priors[i - 1](above))  # p(z_i | z_above)
            q = None if posterior is None else posterior(i, p, above)
            z = source(i, p, q)  #                                                                    (B, D)
            latents.append(Latent(z, p, q))
            above = z.to(self.head.weight.dtype)  # z is float32 even if the network is not
        params = self.head(self.mlp(above)).view(n, -1, *self.image_shape[1:])
        return Output(self._likelihood(params), tuple(latents))

    def _standard_normal(self, n: int) -> DiagonalGaussian:
        mean = widened(self.head.weight.new_zeros(n, *self.latent_shapes[0]))
        return DiagonalGaussian(mean, mean.clone())  # two, for a compiler takes no tensor twice
