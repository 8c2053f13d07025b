"""The ``[model]`` section of ``family = efficient_vdvae``, and the model it describes.

A *scale* says how many times smaller than the (padded) image a map is in each direction: with 32x32 images, maps at
scale 8 are 4x4. Lists with one value per scale run from fine to coarse in both towers.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from lvae_torch.cfg.section import Count, Float, Positive, PositiveInt, TupleOf
from lvae_torch.data.shapes import ImageShape
from lvae_torch.distributions import SmoothScale
from lvae_torch.distributions.logistic_mixture import Bins, eight_bit_span
from lvae_torch.models.classes import UNCONDITIONAL, Classes, ConditionalSection
from lvae_torch.models.efficient_vdvae.model import EfficientVDVAE, Style
from lvae_torch.models.efficient_vdvae.stages import Cells, DownStage, UpStage
from lvae_torch.models.likelihoods.heads import (
    MIXTURE,
    OVERLAPPING_BINS,
    Head,
    LikelihoodName,
    Options,
    likelihood_head,
)

T = TypeVar("T")
PerScale: TypeAlias = T | TupleOf[T]
"""One value for all scales, or one per scale."""
PerStage: TypeAlias = T | TupleOf[T | TupleOf[T]]
"""The same, or for a scale a list with one value per stage, in the order of the pass."""
Kernel = PositiveInt | tuple[PositiveInt, PositiveInt]


class EfficientVDVAESection(ConditionalSection):
    """[model]: Efficient-VDVAE, a very deep VAE. The defaults are the published CIFAR-10 baseline."""

    has_block_weights: ClassVar[bool] = True

    family: Literal["efficient_vdvae"] = "efficient_vdvae"
    """Kind of model; the other keys of this section depend on it."""
    scales: TupleOf[PositiveInt] = (1, 2, 4, 8, 32)
    """How many times smaller than the image the maps are: begins with 1, each a multiple of the one before."""
    bottom_up: TupleOf[TupleOf[PositiveInt]] = ((1,) * 12, (1,) * 7, (1,) * 7, (1,) * 4, (1,) * 3)
    """Per scale, fine to coarse: number of blocks of each stage, in the order of the way up. Each stage has a skip."""
    top_down: TupleOf[TupleOf[PositiveInt]] = (
        *((1,) * 3, (1,) * 4, (1,) * 7),
        *((1, 5, *(1,) * 5), (1, 11, *(1,) * 10)),
    )
    """Per scale, coarse to fine: number of blocks (latent layers) of each stage on the way down; they share a skip."""
    widths: PerScale[PositiveInt] = 384
    """Channels of the maps on the way up: one value, or one per scale, fine to coarse."""
    ratios: PerStage[Positive] = 0.25
    """Width inside a cell as a share of the width around it: one value, one per scale, or per scale one per stage."""
    kernels: PerStage[PositiveInt] = (3, 3, 3, 3, 1)
    """Kernel size inside the cells; same form as ratios."""
    cells: PerStage[PositiveInt] = 1
    """Residual cells in each block; same form as ratios."""
    inner_layers: PerStage[Count] = 2
    """Convolutions between the first and the last one of a cell; same form as ratios."""
    z_channels: PerStage[PositiveInt] = 32
    """Channels of each latent map; same form as ratios, with stages in the order of the way down."""
    down_widths: PerScale[PositiveInt] | None = None
    """Channels of the maps on the way down and of the skips; None takes widths."""
    down_ratios: PerStage[Positive] | None = None
    """ratios on the way down; None takes the value of the partner stage, which made the skip."""
    down_kernels: PerStage[PositiveInt] | None = None
    """kernels on the way down; None takes the value of the partner stage."""
    down_cells: PerStage[PositiveInt] | None = None
    """cells on the way down; None takes the value of the partner stage."""
    down_inner_layers: PerStage[Count] | None = None
    """inner_layers on the way down; None takes the value of the partner stage."""
    pointwise_ends: bool = True
    """Use kernel 1 in the first and last convolution of each cell; otherwise kernels."""
    stem_kernel: Kernel = 1
    """Kernel size of the first convolution, or (rows, columns)."""
    head_kernel: Kernel = 1
    """Kernel size of the last convolution, or (rows, columns)."""
    padding: Count | None = None
    """Zeros on each side of the networks' input; None takes as few as scales need. p(x|z) covers only the image."""
    latent_scale: Literal["std", "logstd"] = "std"
    """Std of z from the network's output r: std gives log(1 + exp(beta r)) / beta, logstd gives exp(beta r)."""
    latent_beta: Positive = 0.6931472
    """The beta of latent_scale (gradient smoothing); values below 1 flatten the function."""
    residual_posterior: bool = False
    """Make each posterior a correction of its prior: means add, stds multiply."""
    stable_init: bool = True
    """Divide the initial weights of each residual cell's last convolution by sqrt(number of latent layers)."""
    zero_prior_init: bool = False
    """Begin with priors that do not depend on the latents above."""
    likelihood: LikelihoodName = MIXTURE
    """p(x | z): bernoulli for binary data, the discretized ones for pixels, gaussian for values without levels."""
    n_mixtures: PositiveInt = 10
    """Components of the discretized mixture of logistics."""
    output_scale: Literal["std", "logstd"] = "std"
    """How the scales of the mixture are computed; see latent_scale."""
    output_beta: Positive = 0.6931472
    """The beta of output_scale."""
    min_log_scale: Float = -250.0
    """Smallest log scale of the mixture, with x on [-1, 1]; the limit of the float type is a floor too."""
    bins: Bins = "exact"
    """For n_bits < 8: exact bins sum to 1; overlapping ones, as published, make 5 bits 0.04 bits/dim too good."""

    def problems(self) -> Iterator[str]:
        n = len(self.scales)
        if self.scales[:1] != (1,) or any(coarse <= fine or coarse % fine for fine, coarse in pairwise(self.scales)):
            yield f"scales = {self.scales} must begin with 1, each a larger multiple of the one before"
        for key in ("bottom_up", "top_down"):
            tower = getattr(self, key)
            if len(tower) != n or not all(tower):
                yield f"{key} has {len(tower)} scales, scales {n}; give each scale a list of at least one stage"
                return
        up_counts, down_counts = self._stage_counts()
        if up_counts != down_counts:
            yield (
                f"bottom_up has {up_counts} stages in its scales (fine to coarse), top_down {down_counts}; each stage "
                "on the way down needs the skip of one on the way up"
            )
        for key in ("widths", "ratios", "kernels", "cells", "inner_layers", "z_channels"):
            for name in (key, f"down_{key}"):
                yield from _misfits(name, getattr(self, name, None), up_counts)

    @property
    def remark(self) -> str:
        return OVERLAPPING_BINS * (self.bins == "overlapping")

    def misfits(self, image_shape: ImageShape, n_levels: int) -> Iterator[str]:
        yield from super().misfits(image_shape, n_levels)
        _, height, width = image_shape
        coarsest = self.scales[-1]
        if self.padding is None:
            if coarsest >= 2 * min(height, width):
                yield (
                    f"scales end with {coarsest}, but the images are only {height}x{width}: what the networks see "
                    "would be mostly padding. Leave out the coarsest scales"
                )
        elif (height + 2 * self.padding) % coarsest or (width + 2 * self.padding) % coarsest:
            yield (
                f"padding = {self.padding} makes {height}x{width} images "
                f"{height + 2 * self.padding}x{width + 2 * self.padding}, which the coarsest scale, {coarsest}, does "
                "not divide; use None for as few zeros as it needs"
            )

    def make(
        self, image_shape: ImageShape, n_levels: int, classes: Classes = UNCONDITIONAL, reference: bool = False
    ) -> EfficientVDVAE:
        """Make the model; ``reference`` keeps the original code's approximations in the likelihood."""
        style = Style(
            pointwise_ends=self.pointwise_ends,
            stable_init=self.stable_init,
            zero_prior_init=self.zero_prior_init,
            latent_scale=SmoothScale(self.latent_scale, self.latent_beta),
            residual_posterior=self.residual_posterior,
            stem_kernel=self.stem_kernel,
            head_kernel=self.head_kernel,
            classes=classes,
        )
        # The networks see binary images unchanged, and others on the axis of the likelihood.
        span = None if self.likelihood == "bernoulli" else _span(n_levels)
        head = _head(self, image_shape[0], n_levels, reference)
        model = EfficientVDVAE(image_shape, self.up_stages(), self.down_stages(), style, head, span, self.padding)
        if self.likelihood == MIXTURE:
            as_published = self.model_copy(update={"bins": "overlapping"})
            model.published = _head(as_published, image_shape[0], n_levels, reference=True).likelihood
        return model

    def _stage_counts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Number of stages in each scale, fine to coarse, for both towers."""
        return tuple(map(len, self.bottom_up)), tuple(map(len, reversed(self.top_down)))

    def up_stages(self) -> list[UpStage]:
        """The bottom-up stages, from the image to the coarsest maps."""
        widths, skips = self._widths("widths"), self._widths("down_widths")
        cells = self._cells("")
        return [
            UpStage(widths[k], skips[k], cells[k][j], n_blocks, self._stride(k) if j == len(stages) - 1 else 1)
            for k, stages in enumerate(self.bottom_up)
            for j, n_blocks in enumerate(stages)
        ]

    def down_stages(self) -> list[DownStage]:
        """The top-down stages, from the coarsest maps to the image."""
        widths, cells = self._widths("down_widths"), self._cells("down_")
        z_channels = _spread(self.z_channels, self._stage_counts()[1])
        return [
            DownStage(widths[k], z_channels[k][j], cells[k][j], n_blocks, self._stride(k) if j == 0 else 1)
            for k, stages in zip(reversed(range(len(self.scales))), self.top_down, strict=True)
            for j, n_blocks in enumerate(stages)
        ]

    def _stride(self, k: int) -> int:
        """Stride from scale k to the next coarser one."""
        return self.scales[k + 1] // self.scales[k] if k + 1 < len(self.scales) else 1

    def _widths(self, key: str) -> list[int]:
        value = getattr(self, key)
        return [stages[0] for stages in _spread(self.widths if value is None else value, (1,) * len(self.scales))]

    def _cells(self, prefix: str) -> list[list[Cells]]:
        """The cells of each stage, by scale from fine to coarse; stages in the order of the pass."""
        columns = [self._spread_key(key, prefix) for key in ("cells", "inner_layers", "ratios", "kernels")]
        return [[Cells(*values) for values in zip(*scale, strict=True)] for scale in zip(*columns, strict=True)]

    def _spread_key(self, key: str, prefix: str) -> list[list[Any]]:
        value = getattr(self, prefix + key)
        if value is not None:
            return _spread(value, self._stage_counts()[0])
        return [stages[::-1] for stages in _spread(getattr(self, key), self._stage_counts()[0])]


def _spread(value: Any, counts: Sequence[int]) -> list[list[Any]]:
    """Expand a ``PerStage`` value to one value per stage in each scale."""
    per_scale = value if isinstance(value, tuple) else (value,) * len(counts)
    return [list(v) if isinstance(v, tuple) else [v] * n for v, n in zip(per_scale, counts, strict=True)]


def _misfits(key: str, value: Any, counts: Sequence[int]) -> Iterator[str]:
    if not isinstance(value, tuple):
        return
    if len(value) != len(counts):
        yield f"{key} has {len(value)} entries, scales {len(counts)}; give one value, or one per scale"
        return
    for k, (stages, n) in enumerate(zip(value, counts, strict=True)):
        if isinstance(stages, tuple) and len(stages) != n:
            yield f"{key} lists {len(stages)} stages in entry {k + 1}, where the towers have {n}"


def _span(n_levels: int) -> float:
    return eight_bit_span(n_levels) if n_levels else 2.0


def _head(section: EfficientVDVAESection, channels: int, n_levels: int, reference: bool) -> Head:
    mixture = {
        "scale": SmoothScale(section.output_scale, section.output_beta),
        "min_log_scale": section.min_log_scale,
        "span": _span(n_levels),
        "bins": section.bins,
    }
    # The original's approximations of other likelihoods are not known here.
    reference = reference and section.likelihood == MIXTURE
    return likelihood_head(
        section.likelihood, channels, n_levels, Options(section.n_mixtures, reference, mixture=mixture)
    )
