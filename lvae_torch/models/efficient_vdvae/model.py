"""Efficient-VDVAE (Hazami, Mama and Thurairatnam 2022, https://arxiv.org/abs/2203.13751).

A very deep VAE of bottleneck cells without normalisation. Each bottom-up stage outputs a skip map; all latent layers
of its partner, a top-down stage, read that map. Shapes: B batch, W width, Z latent channels, h and w height and width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from lvae_torch.data.shapes import ImageShape
from lvae_torch.distributions.gaussian import DiagonalGaussian, SmoothScale
from lvae_torch.models.classes import UNCONDITIONAL, Classes
from lvae_torch.models.contract import Features, Latent, Model, Output, Source, batch_size
from lvae_torch.models.efficient_vdvae.bottleneck import Bottleneck, Kernel, SameConv2d
from lvae_torch.models.efficient_vdvae.stages import Cells, DownStage, UpStage, check_towers
from lvae_torch.models.geometry import Size, crop_to, pad_to, padded_size
from lvae_torch.models.layout import in_stream, keeps_layout, plus_map, repeated
from lvae_torch.models.likelihoods.heads import Head

LOG2_STD = SmoothScale("std", math.log(2))  # as published: output 0 gives std 1
LEAK = 0.1  # slope of the leaky ReLU after convolutions that change the resolution


@dataclass(frozen=True)
class Style:
    """Options that all blocks of a model share."""

    pointwise_ends: bool = True
    """Use kernel 1 in the first and last convolution of each cell; otherwise the stage's kernel."""
    stable_init: bool = True
    """Initialise the last convolution of residual cells smaller by the square root of the number of latent layers."""
    zero_prior_init: bool = False
    """Begin with priors that do not depend on the layers above."""
    latent_scale: SmoothScale = LOG2_STD
    residual_posterior: bool = False
    """Make each posterior a correction of its prior: means add, stds multiply."""
    stem_kernel: Kernel = 1
    head_kernel: Kernel = 1
    classes: Classes = UNCONDITIONAL


class Pool(nn.Module):
    """Divide height and width by ``stride``."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv = SameConv2d(n_in, n_out, stride, stride)

    def forward(self, h: Tensor) -> Tensor:
        return leaky_relu(self.conv(h), LEAK)


class Unpool(nn.Module):
    """Enlarge to ``size``, then add a learned value at each position."""

    def __init__(self, n_in: int, n_out: int, size: Size) -> None:
        super().__init__()
        self.conv = SameConv2d(n_in, n_out, 1)
        self.bias_map = nn.Parameter(torch.zeros(1, n_out, *size))

    def forward(self, y: Tensor) -> Tensor:
        size = self.bias_map.shape[2:]
        return plus_map(interpolate(leaky_relu(self.conv(y), LEAK), size, mode="nearest"), in_stream(self.bias_map))


class UpBlock(nn.Module):
    """A sequence of residual cells."""

    def __init__(self, style: Style, stage: UpStage, gain: float) -> None:
        super().__init__()
        self.cell = residual_cells(style, stage.width, stage.cells, gain)

    def forward(self, h: Tensor) -> Tensor:
        return self.cell(h)


class LinkBlock(nn.Module):
    """Residual cells that output a skip map and a pooled map."""

    def __init__(self, style: Style, stage: UpStage, gain: float, next_width: int) -> None:
        super().__init__()
        self.cell = residual_cells(style, stage.width, stage.cells, gain)
        self.skip_proj = SameConv2d(stage.width, stage.skip_width, 1)
        self.pool = Pool(stage.width, next_width, stage.stride) if stage.stride > 1 else nn.Identity()

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(h)
        return self.pool(h), self.skip_proj(h)


class BottomUpStage(nn.ModuleList):
    """Blocks of one width; ``next_width`` is the width of the stage above."""

    def __init__(self, style: Style, stage: UpStage, gain: float, next_width: int) -> None:
        super().__init__([UpBlock(style, stage, gain) for _ in range(stage.n_blocks - 1)])
        self.append(LinkBlock(style, stage, gain, next_width))

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The input of the next stage, and the skip map."""
        *blocks, link = self
        for block in blocks:
            h = block(h)
        return link(h)


class TopDownBlock(nn.Module):
    """One latent layer: the prior from y, the posterior from y and the skip map; then z is added to y."""

    def __init__(
        self, style: Style, stage: DownStage, gain: float, z_gain: float, unpool: nn.Module, is_top: bool
    ) -> None:
        super().__init__()
        width, z_channels, cells = stage.width, stage.z_channels, stage.cells
        inner = cells.inner_width(width)
        inside = (cells.inner_layers, cells.kernel, style.pointwise_ends)
        self.latent_scale = style.latent_scale
        self.residual_posterior = style.residual_posterior
        self.unpool = unpool
        self.class_embedding = style.classes.embedding(width, is_top)
        self.prior_net = Bottleneck((width, inner, 2 * width), *inside, last_gain=0.0 if style.zero_prior_init else 1.0)
        self.post_net = Bottleneck((2 * width, inner, width), *inside)
        self.prior_proj = SameConv2d(width, 2 * z_channels, 1)
        self.post_proj = SameConv2d(width, 2 * z_channels, 1)
        self.z_proj = SameConv2d(z_channels, width, 1, gain=z_gain)
        self.cell = residual_cells(style, width, cells, gain)

    def forward(
        self, i: int, y: Tensor, skip: Tensor | None, source: Source, labels: Tensor | None
    ) -> tuple[Tensor, Latent]:
        y = self.class_embedding(self.unpool(y), labels)
        residual, features = self.prior_net(y).chunk(2, dim=1)  #         each (B, W, h, w)
        p = self._gaussian(self.prior_proj(features))  #                  p(z_i | z_above)     (B, Z, h, w)
        q = None if skip is None else self._posterior(y, skip, p)  #      q(z_i | z_above, x)
        z = source(i, p, q)
        y = y + residual + self.z_proj(z.to(self.z_proj.weight.dtype))
        return self.cell(y), Latent(z, p, q)

    def _posterior(self, y: Tensor, skip: Tensor, p: DiagonalGaussian) -> DiagonalGaussian:
        q = self._gaussian(self.post_proj(self.post_net(y, skip)))
        return q.relative_to(p) if self.residual_posterior else q

    def _gaussian(self, params: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian.from_mean_and_scale(params, self.latent_scale)


class TopDownStage(nn.ModuleList):
    """Blocks of one width; if ``stage.stride`` > 1, the first unpools maps of ``width_above`` channels to ``size``."""

    def __init__(
        self, style: Style, stage: DownStage, gain: float, z_gain: float, width_above: int, size: Size, is_top: bool
    ) -> None:
        unpool = Unpool(width_above, stage.width, size) if stage.stride > 1 else nn.Identity()
        unpools = [unpool, *(nn.Identity() for _ in range(stage.n_blocks - 1))]
        blocks = enumerate(unpools)
        super().__init__(TopDownBlock(style, stage, gain, z_gain, unpool, is_top and k == 0) for k, unpool in blocks)

    def forward(
        self, first: int, y: Tensor, skip: Tensor | None, source: Source, labels: Tensor | None
    ) -> tuple[Tensor, list[Latent]]:
        """``first`` is the number of latent layers above this stage."""
        latents: list[Latent] = []
        for i, block in enumerate(self, start=first):
            y, latent = block(i, y, skip, source, labels)
            latents.append(latent)
        return y, latents


def residual_cells(style: Style, width: int, cells: Cells, gain: float) -> nn.Sequential:
    """The residual cells of a block; ``gain`` scales the initial weights of their last convolutions."""
    widths = (width, cells.inner_width(width), width)
    inside = (cells.inner_layers, cells.kernel, style.pointwise_ends)
    return nn.Sequential(*(Bottleneck(widths, *inside, residual=True, last_gain=gain) for _ in range(cells.count)))


class EfficientVDVAE(Model):
    """``up`` stages run from the image to the coarsest maps, ``down`` stages back; latents are listed top first."""

    blocks = (UpBlock, LinkBlock, TopDownBlock)
    top_first = ("down",)

    def __init__(
        self,
        image_shape: ImageShape,
        up: Sequence[UpStage],
        down: Sequence[DownStage],
        style: Style,
        head: Head,
        span: float | None = None,
        padding: int | None = None,
    ) -> None:
        """``span``: the networks see span * x - 1 instead of x. ``padding``: rows and columns of zeros on each side of
        their input; None takes as few as the coarsest scale needs. The likelihood covers only the image.

        Raises:
            CfgError: naming every stage that does not fit its neighbours, its partner or the image.
        """
        super().__init__(image_shape, head.in_bits, style.classes.count)
        check_towers(up, down)
        self.down_stages = tuple(down)
        self.coarsest = math.prod(stage.stride for stage in down)
        self.span = span
        self.padding = padding
        sizes = self._sizes()
        self._likelihood = head.likelihood
        z_gain = math.sqrt(1 / sum(stage.n_blocks for stage in down))
        gain = z_gain if style.stable_init else 1.0
        self.input_conv = SameConv2d(image_shape[0], up[0].width, style.stem_kernel)
        self.up = nn.ModuleList(
            BottomUpStage(style, stage, gain, next_width)
            for stage, next_width in zip(up, [*(stage.width for stage in up[1:]), 0], strict=True)
        )
        self.top_h = nn.Parameter(torch.empty(1, down[0].width, *sizes[0]))
        nn.init.kaiming_uniform_(self.top_h, a=0, nonlinearity="linear")
        self.down = nn.ModuleList(
            TopDownStage(style, stage, gain, z_gain, above.width, size, is_top=k == 0)
            for k, (stage, above, size) in enumerate(zip(down, [down[0], *down[:-1]], sizes, strict=True))
        )
        self.output_conv = SameConv2d(down[-1].width, head.n_params, style.head_kernel)

    def encode(self, x: Tensor) -> Features:
        """One skip map per top-down stage, in their order, each (B, W, h, w).

        Raises:
            ValueError: if x has another shape than the model was built for.
        """
        self.check_images(x)
        seen = x if self.span is None else self.span * x - 1
        h = self.input_conv(pad_to(seen, self.canvas))
        skips = []
        for stage in self.up:
            h, skip = stage(h)
            skips.append(skip)
        return tuple(reversed(skips))

    def decode(self, features: Features | None, source: Source, n: int | None = None) -> Output:
        """The top-down pass; without features it generates ``n`` images."""
        n = batch_size(features, n)
        labels = self.labels_from(source, n)
        y = repeated(in_stream(self.top_h), n)
        latents: list[Latent] = []
        for k, stage in enumerate(self.down):
            y, new = stage(len(latents), y, None if features is None else features[k], source, labels)
            latents += new
        params = keeps_layout(crop_to(self.output_conv(y), self.image_shape[1:]))
        return Output(self._likelihood(params), tuple(latents), as_published=self.as_published(params))

    def latent_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(Z, h, w) of each latent, top layer first."""
        return tuple(
            (stage.z_channels, *size)
            for stage, size in zip(self.down_stages, self._sizes(), strict=True)
            for _ in range(stage.n_blocks)
        )

    def block_weights(self) -> list[Tensor]:
        """Kernels of cells, pooling and unpooling: the weights that the reference decays."""
        inside = [m for m in self.modules() if isinstance(m, Bottleneck | Pool | Unpool)]
        return [conv.weight for m in inside for conv in m.modules() if isinstance(conv, SameConv2d)]

    @property
    def canvas(self) -> Size:
        """Height and width of the networks' input."""
        _, height, width = self.image_shape
        if self.padding is None:
            return padded_size((height, width), self.coarsest)
        padded = height + 2 * self.padding, width + 2 * self.padding
        assert padded[0] % self.coarsest == padded[1] % self.coarsest == 0, (padded, self.coarsest)
        return padded

    def _sizes(self) -> list[Size]:
        """Height and width of each top-down stage's maps."""
        height, width = self.canvas
        scale, sizes = self.coarsest, []
        for stage in self.down_stages:
            scale //= stage.stride
            sizes.append((height // scale, width // scale))
        return sizes
