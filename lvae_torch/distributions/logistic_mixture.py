"""Discretized mixture of logistics for any number of colours and levels (PixelCNN++, Salimans et al. 2017,
https://arxiv.org/abs/1701.05517).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lvae_torch.distributions.discretized_logistic import MIN_LOG_SCALE, log_bin_mass, logistic_noise
from lvae_torch.distributions.gaussian import SmoothScale
from lvae_torch.distributions.noise import uniform_like
from lvae_torch.distributions.precision import widened

NOISE_EDGE = 1e-5  # as published
PLAIN_LOG = SmoothScale()
Bins = Literal["exact", "overlapping", "overlapping_closed"]


def eight_bit_span(n_levels: int) -> float:
    """Distance of the outer levels on the axis (v - 127.5) / 127.5 of 8-bit values v, reduced to n levels.

    A level keeps the lowest value of its range: the last of 256 levels is 255 (at 1), the last of 32 is 248.
    """
    return (256 - 256 / n_levels) / 127.5


@dataclass(frozen=True)
class LogisticMixture:
    """All colours of a pixel share a mixture component; each colour's mean depends linearly on earlier colours (Eq. 3).

    Locations are on the axis y = span * x - 1, with a bin around each level; the outer bins extend to infinity.
    """

    mix_logits: Tensor  # (B, K, H, W)
    means: Tensor  # (B, C, K, H, W)
    log_scales: Tensor  # (B, C, K, H, W)
    coefficients: Tensor  # (B, C (C - 1) / 2, K, H, W): colour 1 on 0, 2 on 0, 2 on 1, ...
    n_levels: int = 256
    reference: bool = False
    """Approximate bin masses below 1e-5 by the density, as published; do not quantise modes and samples."""
    span: float = 2.0
    bins: Bins = "exact"
    """exact: they tile the axis; overlapping: 2 / (n_levels - 1) wide, too much where ``span`` < 2 (as published).

    overlapping_closed: so wide too, and the last bin ends like the others where ``span`` < 2 (as VDVAE published).
    """
    density_beta: float = 1.0
    """With ``reference``: the approximation uses log_scales / density_beta, because the original leaves beta out."""

    @staticmethod
    def n_params(channels: int, n_mixtures: int) -> int:
        """Number of output channels that the network needs for images of ``channels`` colours."""
        return n_mixtures * (1 + 2 * channels + channels * (channels - 1) // 2)

    @classmethod
    def from_params(
        cls,
        params: Tensor,
        channels: int,
        n_mixtures: int,
        n_levels: int = 256,
        reference: bool = False,
        scale: SmoothScale = PLAIN_LOG,
        min_log_scale: float = MIN_LOG_SCALE,
        span: float = 2.0,
        bins: Bins = "exact",
    ) -> LogisticMixture:
        """From a head's (B, n_params, H, W).

        Channels are K logits, then for each colour K means, K scales as ``scale`` reads them, and K coefficients: the
        published layout for RGB, whose three colours have as many coefficients. For one colour there are none; for
        other numbers of colours all coefficients come last.
        """
        params = widened(params)
        logits, rest = params[:, :n_mixtures], params[:, n_mixtures:]
        batch, _, *size = rest.shape
        if channels == 3:
            groups = rest.reshape(batch, 3, 3, n_mixtures, *size)
            means, raw_scales, coefficients = groups.unbind(dim=2)
        else:
            pairs, others = rest.split([2 * channels * n_mixtures, rest.shape[1] - 2 * channels * n_mixtures], dim=1)
            means, raw_scales = pairs.reshape(batch, channels, 2, n_mixtures, *size).unbind(dim=2)
            coefficients = others.reshape(batch, -1, n_mixtures, *size) if others.shape[1] else means[:, :0]
        # Smaller scales would make 1 / scale overflow.
        least = max(min_log_scale, -0.7 * math.log(torch.finfo(params.dtype).max))
        density_beta = scale.beta if scale.kind == "logstd" else 1.0
        return cls(
            logits, means, scale.log(raw_scales).clamp(min=least), torch.tanh(coefficients),
            n_levels, reference, span, bins, density_beta,
        )  # fmt: skip

    def log_prob(self, x: Tensor) -> Tensor:
        """Nats per image, (B,), Eq. 2; x is (B, C, H, W), with values on the levels k / (n_levels - 1)."""
        k = torch.round(x * (self.n_levels - 1)).unsqueeze(2)  # (B, C, 1, H, W)
        y = (self.span * x - 1).unsqueeze(2)
        distance = y - self._conditional_means(y)  # (B, C, K, H, W)
        inverse_scale = torch.exp(-self.log_scales)
        half = self._half_width
        below, above = (distance - half) * inverse_scale, (distance + half) * inverse_scale
        is_first = k < 1
        is_last = k > self.n_levels - 2 if self._last_is_open else torch.zeros_like(is_first)
        if self.reference:
            log_mass = self._published_mass(below, distance * inverse_scale, above, is_first, is_last)
        else:
            log_mass = log_bin_mass(below, above, math.log(2 * half) - self.log_scales, is_first, is_last)
        per_component = log_mass.sum(dim=1) + torch.log_softmax(self.mix_logits, dim=1)  # (B, K, H, W)
        return per_component.logsumexp(dim=1).flatten(1).sum(dim=1)

    def mean(self) -> Tensor:
        """The mean of the mixture, clipped to [0, 1] only at the end."""
        per_component = self._conditional_means(None)
        y = (per_component * self.mix_logits.softmax(dim=1).unsqueeze(1)).sum(dim=2)
        return self._to_unit(y)

    def mode(self) -> Tensor:
        """The means of the component with the largest weight, rounded to levels."""
        component = self.mix_logits.argmax(dim=1)
        x = self._to_unit(_choose(self._conditional_means(None), component))
        return x if self.reference else self._quantised(x)

    def sample(self, noise: tuple[Tensor, Tensor] | None = None, temperature: float = 1.0) -> Tensor:
        """A draw, (B, C, H, W), in [0, 1]; ``temperature`` divides the logits and multiplies the scales.

        ``noise``: uniforms (B, H, W, K) to choose the component with, and (B, H, W, C) for the colours.
        Each colour is drawn given the levels of those before it, as ``log_prob`` conditions on them.
        """
        u_mix, u_colours = (u.movedim(-1, 1) for u in (self.noise() if noise is None else noise))
        gumbel = -torch.log(-torch.log(u_mix.clamp(NOISE_EDGE, 1 - NOISE_EDGE)))
        component = (self.mix_logits / temperature + gumbel).argmax(dim=1)  # a draw from softmax(mix_logits)
        scales = temperature * _choose(self.log_scales, component).exp()
        values = _choose(self.means, component) + scales * logistic_noise(u_colours, NOISE_EDGE)
        coefficients = _choose(self.coefficients, component)
        colours: list[Tensor] = []  # in [0, 1]
        for c in range(values.shape[1]):
            lean = sum(coefficients[:, _first(c) + b] * (self.span * colours[b] - 1) for b in range(c))
            x = self._to_unit(values[:, c] + lean)
            colours.append(x if self.reference else self._quantised(x))
        return torch.stack(colours, dim=1)

    def noise(self, height: int | None = None) -> tuple[Tensor, Tensor]:
        """What ``sample`` draws with, for images of as many rows as the parameters have, or of ``height``."""
        batch, channels, n_mixtures, rows, width = self.means.shape
        kinds = (self.means.new_empty(batch, height or rows, width, n) for n in (n_mixtures, channels))
        u_mix, u_colours = map(uniform_like, kinds)
        return u_mix, u_colours

    def _conditional_means(self, y: Tensor | None) -> Tensor:
        """Means given the earlier colours in y, (B, C, K, H, W), Eq. 3; without y, given the means of those colours."""
        means: list[Tensor] = []
        for c in range(self.means.shape[1]):
            before = [means[b] if y is None else y[:, b] for b in range(c)]
            lean = sum(self.coefficients[:, _first(c) + b] * value for b, value in enumerate(before))
            means.append(self.means[:, c] + lean)
        return torch.stack(means, dim=1)

    @property
    def _half_width(self) -> float:
        """Of a bin, on the scale of y."""
        return (self.span / 2 if self.bins == "exact" else 1) / (self.n_levels - 1)

    @property
    def _last_is_open(self) -> bool:
        """Whether all mass above the last level belongs to it."""
        return self.bins != "overlapping_closed" or self.span == 2

    def _published_mass(
        self, below: Tensor, middle: Tensor, above: Tensor, is_first: Tensor, is_last: Tensor
    ) -> Tensor:
        """Log mass from a difference of sigmoids; below 1e-5, from the density at the middle of the bin."""
        mass = torch.sigmoid(above) - torch.sigmoid(below)
        log_scales = self.log_scales / self.density_beta
        density = middle - log_scales - 2 * softplus(middle) + math.log(2 * self._half_width)
        between = torch.where(mass > 1e-5, mass.clamp(min=1e-12).log(), density)
        return torch.where(is_first, above - softplus(above), torch.where(is_last, -softplus(below), between))

    def _to_unit(self, y: Tensor) -> Tensor:
        return ((y + 1) / self.span).clamp(0, 1)

    def _quantised(self, x: Tensor) -> Tensor:
        """The level nearest to x."""
        return torch.round(x * (self.n_levels - 1)) / (self.n_levels - 1)


def _first(c: int) -> int:
    """Index of the first coefficient of colour c."""
    return c * (c - 1) // 2


def _choose(per_component: Tensor, component: Tensor) -> Tensor:
    """Choose ``component``, (B, H, W), from (B, N, K, H, W) -> (B, N, H, W)."""
    batch, n, _, height, width = per_component.shape
    index = component[:, None, None].expand(batch, n, 1, height, width)
    return per_component.gather(2, index).squeeze(2)
