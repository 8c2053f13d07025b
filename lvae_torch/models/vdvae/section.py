"""The ``[model]`` section of ``family = vdvae``, and the model it describes."""

from collections.abc import Callable, Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from lvae_torch.cfg.section import Count, Float, Int, Positive, PositiveInt
from lvae_torch.data.shapes import ImageShape
from lvae_torch.distributions.coarse import CoarseLikelihood
from lvae_torch.distributions.logistic_mixture import eight_bit_span
from lvae_torch.models.contract import Likelihood
from lvae_torch.models.likelihoods.heads import (
    MIXTURE,
    OVERLAPPING_BINS,
    Head,
    LikelihoodName,
    LikelihoodSection,
    Options,
    likelihood_head,
)
from lvae_torch.models.likelihoods.heads import misfits as misfits_of_levels
from lvae_torch.models.vdvae.blocks import custom_widths, decoder_blocks, encoder_blocks, misfits
from lvae_torch.models.vdvae.model import VDVAE, Normalization, Plan


class VDVAESection(LikelihoodSection):
    """[model]: the very deep VAE of openai/vdvae. The defaults are its CIFAR-10 model."""

    has_block_weights: ClassVar[bool] = True

    family: Literal["vdvae"] = "vdvae"
    """Kind of model; the other keys of this section depend on it."""
    enc_blocks: str = "32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3"
    """Bottom-up blocks, finest first: AxN is N blocks at height A, AdK one whose output is averaged down to A / K."""
    dec_blocks: str = "1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21"
    """Top-down blocks, coarsest first, a latent layer each: AxN, or AmK for one that first adds the state of K."""
    width: PositiveInt = 384
    """Channels of the maps."""
    custom_width_str: str = ""
    """Other channels for some resolutions: resolution:width, separated by commas; coarser maps are never narrower."""
    bottleneck_multiple: Annotated[Positive, Field(le=16)] = 0.25
    """Width inside a block, as a share of the width around it."""
    z_channels: PositiveInt = 16
    """Channels of each latent map."""
    no_bias_above: Count = 64
    """Up to this resolution the state begins as a learned map; above it begins at zero."""
    likelihood: LikelihoodName = MIXTURE
    """p(x | z): bernoulli for binary data, the discretized ones for pixels, gaussian for values without levels."""
    n_mixtures: PositiveInt = 10
    """Components of the discretized mixture of logistics."""
    min_log_scale: Float = -7.0
    """Floor of the mixture's log scales, on the axis from -1 to 1."""
    likelihood_bits: Annotated[Int, Field(ge=1, le=8)] = 8
    """Bits that p(x | z) is of, where the networks see all 8; below 8 it is for 8-bit data ([data] n_bits = 8)."""
    bins: Literal["exact", "overlapping_closed"] = "exact"
    """Below 8 bits: exact ones add up to 1; overlapping_closed, as published, do not (5 bits: by 0.04 bits/dim)."""
    input_mean: Float = 120.63838
    """Mean of the 8-bit pixels, taken off what the networks see."""
    input_std: Positive = 64.16736
    """Standard deviation of the 8-bit pixels, which what the networks see is divided by."""

    @property
    def remark(self) -> str:
        return OVERLAPPING_BINS * (self.bins == "overlapping_closed")

    def problems(self) -> Iterator[str]:
        readers: dict[str, Callable[[str], object]] = {
            "enc_blocks": encoder_blocks,
            "dec_blocks": decoder_blocks,
            "custom_width_str": lambda text: custom_widths(text, self.width),
        }
        unread = []
        for key, read in readers.items():
            try:
                read(getattr(self, key))
            except ValueError as error:
                unread.append(f"{key}: {error}")
        yield from unread
        if not unread:
            plan = self.plan()
            yield from misfits(plan.encoder, plan.decoder, plan.widths, plan.no_bias_above)
            if narrow := [r for r in {b.resolution for b in plan.encoder} if plan.inner_width(r) < 1]:
                yield f"bottleneck_multiple = {self.bottleneck_multiple} leaves no channel at {sorted(narrow)}"
        if self.likelihood_bits < 8 and self.is_density:
            yield "likelihood_bits is for likelihoods of levels; leave it out"

    def misfits(self, image_shape: ImageShape, n_levels: int) -> Iterator[str]:
        if self.likelihood_bits == 8:
            yield from super().misfits(image_shape, n_levels)
        elif n_levels != 256:
            yield (
                f"likelihood_bits = {self.likelihood_bits} cuts images of 256 levels, but these have {n_levels}; leave "
                "it out, or leave out [data] n_bits and binarize"
            )
        else:
            yield from misfits_of_levels(self.likelihood, 2**self.likelihood_bits)
        _, height, width = image_shape
        encoder = self.plan().encoder
        if height != encoder[0].resolution:
            yield (
                f"enc_blocks begins at resolution {encoder[0].resolution}, but the images are {height}x{width}; the "
                "finest resolution is their height"
            )
        elif odd := sorted(r for r in {b.resolution // b.pool for b in encoder} if r * width % height):
            yield (
                f"enc_blocks: maps of height {', '.join(map(str, odd))} have no whole width for images of "
                f"{height}x{width}"
            )

    def make(self, image_shape: ImageShape, n_levels: int, reference: bool = False) -> VDVAE:
        """The model; ``reference`` keeps the original code's approximations in the likelihood."""
        head = _head(self, image_shape[0], n_levels, reference)
        model = VDVAE(image_shape, self.plan(), head, _normalization(self, n_levels))
        if self.likelihood == MIXTURE:
            as_published = self.model_copy(update={"bins": "overlapping_closed"})
            model.published = _head(as_published, image_shape[0], n_levels, reference=True).likelihood
        return model

    def plan(self) -> Plan:
        """The blocks that the strings describe."""
        return Plan(
            encoder=encoder_blocks(self.enc_blocks),
            decoder=decoder_blocks(self.dec_blocks),
            widths=custom_widths(self.custom_width_str, self.width),
            z_channels=self.z_channels,
            bottleneck=self.bottleneck_multiple,
            no_bias_above=self.no_bias_above,
        )


def _normalization(section: VDVAESection, n_levels: int) -> Normalization:
    # Of k bits the lowest value of each range is seen, as the original cuts them.
    scale = 127.5 * eight_bit_span(n_levels) if n_levels > 2 else 255.0
    return Normalization(section.input_mean, section.input_std, scale)


def _head(section: VDVAESection, channels: int, n_levels: int, reference: bool) -> Head:
    n_scored = n_levels if section.likelihood_bits == 8 else 2**section.likelihood_bits
    mixture = {
        "min_log_scale": section.min_log_scale,
        "span": eight_bit_span(n_scored) if n_scored else 2.0,
        "bins": section.bins,
    }
    # The original has no other likelihood, so no approximations of others.
    options = Options(section.n_mixtures, reference and section.likelihood == MIXTURE, mixture=mixture)
    head = likelihood_head(section.likelihood, channels, n_scored, options)
    return head if n_scored == n_levels else _coarse(head, n_scored, n_levels)


def _coarse(head: Head, n_levels: int, n_levels_seen: int) -> Head:
    def likelihood(params: Tensor) -> Likelihood:
        return CoarseLikelihood(head.likelihood(params), n_levels, n_levels_seen)

    return Head(head.n_params, likelihood, head.in_bits)
