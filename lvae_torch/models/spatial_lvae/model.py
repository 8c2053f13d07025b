"""The spatial ladder VAE: a bottom-up network of features, and a top-down ladder of latent maps.

As in the Ladder VAE (Sonderby et al. 2016), posterior and prior share one top-down path; a learned merge of
features replaces the precision-weighted product. Shapes: B batch, C width, Z latent channels.
"""

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lvae_torch.data.shapes import ImageShape
from lvae_torch.distributions.gaussian import DiagonalGaussian
from lvae_torch.models.classes import UNCONDITIONAL, Classes
from lvae_torch.models.contract import Features, Latent, Model, Output, Source, batch_size, of_classes
from lvae_torch.models.geometry import crop_to, pad_to, padded_size
from lvae_torch.models.layout import keeps_layout, repeated
from lvae_torch.models.likelihoods.heads import Head
from lvae_torch.models.sources import posterior_sample
from lvae_torch.models.spatial_lvae.initialization import draw_kaiming, rescale_to_data
from lvae_torch.models.spatial_lvae.residual import BlockStyle, Merge, ResidualBlock, residual_tower


@dataclass(frozen=True)
class Stage:
    """Sizes of one latent layer and of the deterministic blocks around it."""

    z_channels: int
    halvings: int
    """How often height and width halve on the way up into this layer, and double on the way down out of it."""


@dataclass(frozen=True)
class Ladder:
    """Options that all layers of a spatial LVAE share."""

    style: BlockStyle
    blocks_per_layer: int = 2
    gated: bool = False
    use_skip: bool = False
    linear_merge: bool = False
    learn_top_prior: bool = False
    initial_halving: bool = True
    max_log_std: float | None = None
    classes: Classes = UNCONDITIONAL


class Rung(nn.Module):
    """One layer of the top-down path: the prior from above, the posterior from above and from x, then z."""

    def __init__(self, ladder: Ladder, stage: Stage, top_size: tuple[int, int] | None = None) -> None:
        super().__init__()
        style, z_channels = ladder.style, stage.z_channels
        is_top, classes = top_size is not None, ladder.classes
        self.max_log_std = ladder.max_log_std
        self.posterior = nn.Conv2d(style.channels, 2 * z_channels, kernel_size=3, padding=1)
        self.z_proj = nn.Conv2d(z_channels, style.channels, kernel_size=3, padding=1)
        self.skip = Merge(style) if ladder.use_skip and top_size is None else None
        if top_size is not None:
            zeros = torch.zeros(1, 2 * z_channels, *top_size)  # a standard normal at first
            self.top_prior = nn.Parameter(zeros, requires_grad=ladder.learn_top_prior)
            self.class_prior = (classes if ladder.learn_top_prior else UNCONDITIONAL).embedding(2 * z_channels, is_top)
        else:
            self.prior = nn.Conv2d(style.channels, 2 * z_channels, kernel_size=3, padding=1)
            self.merge = Merge(style, linear=ladder.linear_merge)
        self.class_embedding = classes.embedding(style.channels, is_top)
        self.blocks = residual_tower(style, ladder.gated, ladder.blocks_per_layer, stage.halvings, up=True)

    def forward(
        self, i: int, h: Tensor | None, feature: Tensor | None, source: Source, n: int, labels: Tensor | None
    ) -> tuple[Tensor, Latent]:
        if h is None:  # the top has no map from above: the class y enters its prior, its posterior and what it gives
            p = self._gaussian(self.class_prior(repeated(self.top_prior, n), labels))  #                    p(z_L | y)
            both = None if feature is None else self.class_embedding(feature, labels)
        else:
            h = self.class_embedding(h, labels)
            p = self._gaussian(self.prior(h))  #                                                      p(z_i | z_above)
            both = None if feature is None else self.merge(feature, h)  #                             (B, C, H, W)
        q = None if both is None else self._gaussian(self.posterior(both))  #                      q(z_i | z_above, x)
        z = source(i, p, q)  #                                                                        (B, Z, H, W)
        out = self.z_proj(z.to(self.z_proj.weight.dtype))  #                                          (B, C, H, W)
        out = self.class_embedding(out, labels) if h is None else out
        if self.skip is not None:
            out = self.skip(out, h)
        return self.blocks(out), Latent(z, p, q)

    def _gaussian(self, params: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian.from_mean_and_log_var(params, self.max_log_std)


class SpatialLVAE(Model):
    """A ladder of latent maps. ``stages`` run bottom to top, as in papers; latents are listed top first."""

    blocks = (ResidualBlock,)
    top_first = ("rungs",)

    def __init__(
        self,
        image_shape: ImageShape,
        stages: tuple[Stage, ...],
        ladder: Ladder,
        head: Head,
        data_dependent_init: bool = False,
    ) -> None:
        super().__init__(image_shape, head.in_bits, ladder.classes.count)
        self.data_dependent_init = data_dependent_init
        self.stages = stages
        self.ladder = ladder
        self._likelihood = head.likelihood
        style = ladder.style
        stride = 2 if ladder.initial_halving else 1
        self.stem = nn.Sequential(
            nn.Conv2d(image_shape[0], style.channels, kernel_size=5, stride=stride, padding=2),
            style.activation(),
            ResidualBlock(style, gated=False),  # never gated: this matches the published parameter counts
        )
        self.bottom_up = nn.ModuleList(
            residual_tower(style, ladder.gated, ladder.blocks_per_layer, stage.halvings) for stage in stages
        )
        *below, top = stages
        top_size = self.latent_shapes()[0][1:]
        self.rungs = nn.ModuleList([Rung(ladder, top, (top_size[0], top_size[1]))])  # top first
        self.rungs.extend(Rung(ladder, stage) for stage in reversed(below))
        self.final = residual_tower(style, ladder.gated, ladder.blocks_per_layer)
        self.head = nn.Conv2d(style.channels, head.n_params, kernel_size=3, padding=1)

    def encode(self, x: Tensor) -> Features:
        """Bottom-up features, top layer first, each (B, C, h_i, w_i).

        Raises:
            ValueError: if x has another shape than the model was built for.
        """
        self.check_images(x)
        h = self.stem(pad_to(x, self.canvas))
        features = []
        for layer in self.bottom_up:
            h = layer(h)
            features.append(h)
        return tuple(reversed(features))

    def decode(self, features: Features | None, source: Source, n: int | None = None) -> Output:
        """The top-down pass; without features it generates ``n`` images."""
        n = batch_size(features, n)
        labels = self.labels_from(source, n)
        h: Tensor | None = None
        latents: list[Latent] = []
        for i, rung in enumerate(self.rungs):
            h, latent = rung(i, h, None if features is None else features[i], source, n, labels)
            latents.append(latent)
        assert h is not None, "a ladder has at least one rung"
        if self.ladder.initial_halving:
            h = interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)
        h = crop_to(self.final(h), self.image_shape[1:])
        params = keeps_layout(self.head(h))
        return Output(self._likelihood(params), tuple(latents), as_published=self.as_published(params))

    def latent_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(Z, h, w) of each latent, top layer first."""
        height, width = self.canvas
        first = int(self.ladder.initial_halving)
        halvings = accumulate(stage.halvings for stage in self.stages)
        shapes = [
            (stage.z_channels, height >> (first + k), width >> (first + k))
            for stage, k in zip(self.stages, halvings, strict=True)
        ]
        return tuple(reversed(shapes))

    @property
    def starts_from_data(self) -> bool:
        """Whether the settings ask for data-dependent initialisation."""
        return self.data_dependent_init

    def initialize(self, x: Tensor, bound: float | None = None, labels: Tensor | None = None) -> None:
        """Initialise from one batch x, (B, C, H, W), if ``data_dependent_init`` is set."""
        if not self.data_dependent_init:
            return
        was_training = self.training
        self.train()
        draw_kaiming(self)
        rescale_to_data(self, lambda: self(x, of_classes(posterior_sample, labels)), bound=bound)
        self.train(was_training)

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of the padded image."""
        factor = 2 ** (sum(stage.halvings for stage in self.stages) + int(self.ladder.initial_halving))
        return padded_size((self.image_shape[1], self.image_shape[2]), factor)
