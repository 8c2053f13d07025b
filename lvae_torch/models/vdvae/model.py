"""VDVAE (Child 2020, "Very Deep VAEs Generalize Autoregressive Models"): residual bottleneck blocks without norms.

Every resolution keeps a state of its own on the way down; a block adds what a coarser one holds, then its latent.
Shapes: B batch, W width of a resolution, Z latent channels, h and w height and width of its maps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, gelu, interpolate, pad

from lvae_torch.data.shapes import ImageShape
from lvae_torch.distributions.gaussian import DiagonalGaussian
from lvae_torch.models.contract import Features, Latent, Model, Output, Source, batch_size
from lvae_torch.models.fused import activated_conv
from lvae_torch.models.layout import in_stream, is_channels_last, keeps_layout, repeated
from lvae_torch.models.likelihoods.heads import Head
from lvae_torch.models.vdvae.blocks import DecoderBlock, EncoderBlock, Widths, bias_resolutions

POINTWISE_UP_TO = 2  # resolutions where a kernel of 3 would see little but padding


@dataclass(frozen=True)
class Plan:
    """The blocks of a model, and the widths of its maps."""

    encoder: Sequence[EncoderBlock]
    decoder: Sequence[DecoderBlock]
    widths: Widths
    z_channels: int
    bottleneck: float = 0.25
    """Width inside a block, as a share of the width of its resolution."""
    no_bias_above: int = 64

    def inner_width(self, resolution: int) -> int:
        return int(self.widths[resolution] * self.bottleneck)


@dataclass(frozen=True)
class Normalization:
    """What networks see: (v - mean) / std of the 8-bit value v = ``scale`` * x of a pixel x in [0, 1]."""

    mean: float
    std: float
    scale: float = 255.0

    def __call__(self, x: Tensor) -> Tensor:
        return (x * self.scale - self.mean) / self.std


class GeluConv2d(nn.Conv2d):
    """conv(GELU(x)) of stride 1 that keeps the size of its input; weights as torch's own, biases zero."""

    def __init__(self, n_in: int, n_out: int, kernel: int) -> None:
        super().__init__(n_in, n_out, kernel, padding=kernel // 2)
        _zero_bias(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) -> (B, n_out, H, W)."""
        return activated_conv("gelu", x, self.weight, self.bias)


class Block(nn.Module):
    """Convolutions n_in -> n_mid -> n_mid -> n_mid -> n_out, a GELU before each; the inner two have the kernel."""

    def __init__(self, n_in: int, n_mid: int, n_out: int, resolution: int, last_gain: float = 1.0) -> None:
        super().__init__()
        kernel = 3 if resolution > POINTWISE_UP_TO else 1
        self.c1 = GeluConv2d(n_in, n_mid, 1)
        self.c2 = GeluConv2d(n_mid, n_mid, kernel)
        self.c3 = GeluConv2d(n_mid, n_mid, kernel)
        self.c4 = GeluConv2d(n_mid, n_out, 1)
        self.c4.weight.data *= last_gain

    def forward(self, x: Tensor) -> Tensor:
        return self.after_first(self.c1(x))

    def after_first(self, h: Tensor) -> Tensor:
        """The rest, of the first convolution's output."""
        out: Tensor = self.c4(self.c3(self.c2(h)))
        return out

    def of_two(self, x: Tensor, gelu_of_other: Tensor) -> Tensor:
        """The block of both inputs joined, without the copy that joining takes; the second comes after its GELU."""
        to_x, to_other = self.c1.weight.split([x.shape[1], gelu_of_other.shape[1]], dim=1)
        return self.after_first(activated_conv("gelu", x, to_x, self.c1.bias) + conv2d(gelu_of_other, to_other))


class BottomUpBlock(nn.Module):
    """A residual block; then averages over ``pool`` x ``pool`` places, and channels of zeros up to the new width."""

    def __init__(self, plan: Plan, block: EncoderBlock, gain: float) -> None:
        super().__init__()
        width = plan.widths[block.resolution]
        self.pool = block.pool
        self.more_channels = plan.widths[block.resolution // block.pool] - width
        self.block = Block(width, plan.inner_width(block.resolution), width, block.resolution, gain)

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.block(h)
        if self.pool > 1:
            h = avg_pool2d(h, self.pool)
        return pad(h, (0, 0, 0, 0, 0, self.more_channels)) if self.more_channels else h


class TopDownBlock(nn.Module):
    """One latent layer: prior from the state, posterior from the state and the encoder's maps; z joins the state."""

    def __init__(self, plan: Plan, block: DecoderBlock, gain: float) -> None:
        super().__init__()
        width, n_mid = plan.widths[block.resolution], plan.inner_width(block.resolution)
        self.z_channels, self.width = plan.z_channels, width
        n_stats = 2 * plan.z_channels
        # Priors begin as N(0, 1), whatever is above them.
        self.prior = Block(width, n_mid, n_stats + width, block.resolution, last_gain=0.0)
        self.posterior = Block(2 * width, n_mid, n_stats, block.resolution)
        self.z_proj = nn.Conv2d(plan.z_channels, width, 1)
        self.z_proj.weight.data *= gain
        _zero_bias(self.z_proj)
        self.resnet = Block(width, n_mid, width, block.resolution, gain)

    def forward(
        self, i: int, x: Tensor, coarser: Tensor | None, seen: Tensor | None, source: Source
    ) -> tuple[Tensor, Latent]:
        """The new state, (B, W, h, w), from the old one x, of the coarser one where the block adds it.

        ``seen``: GELU of the encoder's maps, (B, W, h, w); None generates.
        """
        if coarser is not None:
            x = x + interpolate(keeps_layout(coarser)[:, : self.width], x.shape[2:], mode="nearest")
        stats, residual = self.prior(x).split([2 * self.z_channels, self.width], dim=1)
        # A copy, so that the residual's share of the memory is not kept with it.
        p = DiagonalGaussian.from_mean_and_log_std(stats.clone(memory_format=torch.preserve_format))
        q = None if seen is None else DiagonalGaussian.from_mean_and_log_std(self.posterior.of_two(x, seen))
        z = source(i, p, q)
        x = x + residual + self.z_proj(z.to(self.z_proj.weight.dtype))
        return x + self.resnet(x), Latent(z, p, q)


class VDVAE(Model):
    """Latents come out top-down, one for each block of ``plan.decoder``."""

    blocks = (BottomUpBlock, TopDownBlock)
    top_first = ("top_down",)

    def __init__(self, image_shape: ImageShape, plan: Plan, head: Head, normalization: Normalization | None) -> None:
        """``normalization``: None shows images to the networks as they are."""
        super().__init__(image_shape, head.in_bits)
        channels, height, width = image_shape
        finest = plan.encoder[0].resolution
        assert height == finest, "a section's misfits say so first"
        self.plan = plan
        self.normalization = normalization
        self._likelihood = head.likelihood
        self._aspect = width / height
        self.input_conv = nn.Conv2d(channels, plan.widths[finest], 3, padding=1)
        up_gain, down_gain = (math.sqrt(1 / len(blocks)) for blocks in (plan.encoder, plan.decoder))
        self.bottom_up = nn.ModuleList(BottomUpBlock(plan, block, up_gain) for block in plan.encoder)
        self.top_down = nn.ModuleList(TopDownBlock(plan, block, down_gain) for block in plan.decoder)
        self.bias_resolutions = bias_resolutions(plan.decoder, plan.no_bias_above)
        self.bias_maps = nn.ParameterList(
            nn.Parameter(torch.zeros(1, plan.widths[r], *self._size(r))) for r in self.bias_resolutions
        )
        self.gain = nn.Parameter(torch.ones(1, plan.widths[finest], 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, plan.widths[finest], 1, 1))
        self.output_conv = nn.Conv2d(plan.widths[finest], head.n_params, 1)
        _zero_bias(self.input_conv)
        _zero_bias(self.output_conv)
        self._resolutions = sorted({block.resolution for block in plan.decoder})

    def encode(self, x: Tensor) -> Features:
        """GELU of the newest maps of each resolution that has latents, coarsest first, each (B, W, h, w).

        Raises:
            ValueError: if x has another shape than the model was built for.
        """
        self.check_images(x)
        h = self.input_conv(x if self.normalization is None else self.normalization(x))
        newest = {self._resolutions[-1]: h}
        for block, planned in zip(self.bottom_up, self.plan.encoder, strict=True):
            h = block(h)
            newest[planned.resolution // planned.pool] = h
        return tuple(gelu(newest[r]) for r in self._resolutions)

    def decode(self, features: Features | None, source: Source, n: int | None = None) -> Output:
        """The one top-down pass; ``n`` images where there are no features."""
        size = batch_size(features, n)
        seen = {} if features is None else dict(zip(self._resolutions, features, strict=True))
        states = self._first_states(size)
        latents: list[Latent] = []
        for i, (block, planned) in enumerate(zip(self.top_down, self.plan.decoder, strict=True)):
            r, mixin = planned.resolution, planned.mixin
            x = states[r] if r in states else self._zeros(size, r)
            states[r], latent = block(i, x, None if mixin is None else states[mixin], seen.get(r), source)
            latents.append(latent)
        y = states[self._resolutions[-1]] * self.gain + self.bias
        params = keeps_layout(self.output_conv(y))
        return Output(self._likelihood(params), tuple(latents), as_published=self.as_published(params))

    def latent_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(Z, h, w) of each latent, top layer first."""
        return tuple((self.plan.z_channels, *self._size(block.resolution)) for block in self.plan.decoder)

    def block_weights(self) -> list[Tensor]:
        """Kernels of the bottleneck blocks."""
        return [module.weight for module in self.modules() if isinstance(module, GeluConv2d)]

    def _first_states(self, n: int) -> dict[int, Tensor]:
        return {r: repeated(in_stream(m), n) for r, m in zip(self.bias_resolutions, self.bias_maps, strict=True)}

    def _zeros(self, n: int, resolution: int) -> Tensor:
        zeros = in_stream(self.gain.new_zeros(n, self.plan.widths[resolution], *self._size(resolution)))
        is_last = is_channels_last(self.input_conv.weight)
        return zeros.contiguous(memory_format=torch.channels_last) if is_last else zeros

    def _size(self, resolution: int) -> tuple[int, int]:
        return resolution, round(resolution * self._aspect)


def _zero_bias(conv: nn.Conv2d) -> None:
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
