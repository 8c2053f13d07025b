"""The fully-connected Ladder VAE (Sonderby et al. 2016, https://arxiv.org/abs/1602.02282).

A deterministic upward pass gives every rung a Gaussian likelihood term N(mu_hat, var_hat). On the way down, the
posterior is the product of this term and the prior, so inference and generation share one top-down path.
Shapes: B batch, D latent units of a rung.
"""

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from lvae_torch.data.shapes import ImageShape
from lvae_torch.distributions.gaussian import DiagonalGaussian
from lvae_torch.models.contract import Features, Model, Output, Source
from lvae_torch.models.ladder.generative import GenerativeLadder, RungSize, gaussian, gaussian_head, top_down_maps
from lvae_torch.models.ladder.mlp import MLP, DenseStyle
from lvae_torch.models.likelihoods.heads import Head


class LadderVAE(Model):
    """A ladder of latent vectors. ``sizes`` run bottom to top, as in papers; latents are listed top first."""

    blocks = (MLP,)

    def __init__(
        self,
        image_shape: ImageShape,
        sizes: Sequence[RungSize],
        style: DenseStyle,
        head: Head,
        narrow_upward: bool = False,
        share_top_down: bool = True,
    ) -> None:
        """``narrow_upward`` passes mu_hat upwards instead of the hidden features. Without ``share_top_down`` the
        posterior has its own top-down maps. Both are options of the authors' code."""
        super().__init__(image_shape, head.in_bits)
        self.narrow_upward = narrow_upward
        self.generative = GenerativeLadder(image_shape, sizes, style, head)
        passed_up = [size.z_dim if narrow_upward else size.width for size in sizes]
        n_ins = (prod(image_shape), *passed_up[:-1])
        self.up = nn.ModuleList(MLP(style, n_in, size.width) for n_in, size in zip(n_ins, sizes, strict=True))
        self.up_heads = nn.ModuleList(gaussian_head(style, size.width, size.z_dim) for size in sizes)
        self.posterior_maps = None if share_top_down else top_down_maps(style, sizes)

    def encode(self, x: Tensor) -> Features:
        """mu_hat and the softplus argument of var_hat, top rung first, each (B, 2D).

        Raises:
            ValueError: if x has another shape than the model was built for.
        """
        features: list[Tensor] = []
        self.check_images(x)
        d = x.flatten(1)  #                                                           (B, CHW)
        for mlp, head in zip(self.up, self.up_heads, strict=True):
            d = mlp(d)  #                                                             d_i = MLP(d_{i-1})
            params = head(d)  #                                                       (B, 2D)
            features.append(params)
            if self.narrow_upward:
                d = params.chunk(2, dim=1)[0]
        return tuple(reversed(features))

    def decode(self, features: Features | None, source: Source, n: int | None = None) -> Output:
        """The top-down pass; without features it generates ``n`` images."""
        if features is None:
            return self.generative(source, n)

        def posterior(i: int, prior: DiagonalGaussian, z_above: Tensor | None) -> DiagonalGaussian:
            likelihood = gaussian(features[i])  #                                     N(mu_hat, var_hat)
            if z_above is None:
                return likelihood  # the top posterior is not merged with the prior
            from_above = prior if self.posterior_maps is None else gaussian(self.posterior_maps[i - 1](z_above))
            return likelihood.merge(from_above)

        return self.generative(source, features[0].shape[0], posterior)

    def latent_shapes(self) -> tuple[tuple[int], ...]:
        """(D,) of each latent, top rung first."""
        return self.generative.latent_shapes
