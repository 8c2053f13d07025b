"""Discretized mixture of logistics (Salimans et al. 2017, PixelCNN++) for any number of colours and levels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lvae_torch.distributions.discretized_logistic import MIN_LOG_SCALE, log_bin_mass, logistic_noise
from lvae_torch.distributions.precision import widened

NOISE_EDGE = 1e-5  # as published


@dataclass(frozen=True)
class LogisticMixture:
    """A pixel's colours share one mixture component; each colour's mean leans on the colours before it.

    Locations are on the scale y = 2x - 1. Bins of width 2 / (n_levels - 1) sit around the levels; the outer are open.
    """

    mix_logits: Tensor  # (B, K, H, W)
    means: Tensor  # (B, C, K, H, W)
    log_scales: Tensor  # (B, C, K, H, W)
    coefficients: Tensor  # (B, C (C - 1) / 2, K, H, W): of colour 1 on 0, of 2 on 0, of 2 on 1, ...
    n_levels: int = 256
    reference: bool = False
    """The published approximation of bin masses below 1e-5, by the density; modes and samples not quantised."""

    @staticmethod
    def n_params(channels: int, n_mixtures: int) -> int:
        """Channels of the network's head for images of ``channels`` colours."""
        return n_mixtures * (1 + 2 * channels + channels * (channels - 1) // 2)

    @classmethod
    def from_params(
        cls, params: Tensor, channels: int, n_mixtures: int, n_levels: int = 256, reference: bool = False
    ) -> LogisticMixture:
        """From a head's (B, n_params, H, W).

        Channels are K logits, then for each colour K means, K log scales and K coefficients: the published
        layout for RGB, whose three colours have as many coefficients. For one colour there are none; for other
        numbers of colours all coefficients come last.
        """
        params = widened(params)
        logits, rest = params[:, :n_mixtures], params[:, n_mixtures:]
        batch, _, *size = rest.shape
        if channels == 3:
            groups = rest.reshape(batch, 3, 3, n_mixtures, *size)
            means, log_scales, coefficients = groups.unbind(dim=2)
        else:
            pairs, others = rest.split([2 * channels * n_mixtures, rest.shape[1] - 2 * channels * n_mixtures], dim=1)
            means, log_scales = pairs.reshape(batch, channels, 2, n_mixtures, *size).unbind(dim=2)
            coefficients = others.reshape(batch, -1, n_mixtures, *size) if others.shape[1] else means[:, :0]
        return cls(logits, means, log_scales.clamp(min=MIN_LOG_SCALE), torch.tanh(coefficients), n_levels, reference)

    def log_prob(self, x: Tensor) -> Tensor:
        """Nats per image, (B,); x is (B, C, H, W), one of the levels k / (n_levels - 1)."""
        y = (2 * x - 1).unsqueeze(2)  # (B, C, 1, H, W)
        distance = y - self._conditional_means(y)  # (B, C, K, H, W)
        log_mass = self._published_mass(y, distance) if self.reference else self._exact_mass(y, distance)
        per_component = log_mass.sum(dim=1) + torch.log_softmax(self.mix_logits, dim=1)  # (B, K, H, W)
        return per_component.logsumexp(dim=1).flatten(1).sum(dim=1)

    def mean(self) -> Tensor:
        """The mixture's mean before the colours are cut to [0, 1], then cut."""
        per_component = self._conditional_means(None)
        y = (per_component * self.mix_logits.softmax(dim=1).unsqueeze(1)).sum(dim=2)
        return self._to_unit(y)

    def mode(self) -> Tensor:
        """The means of the component with the largest weight, on the nearest levels."""
        component = self.mix_logits.argmax(dim=1)
        x = self._to_unit(_choose(self._conditional_means(None), component))
        return x if self.reference else self._quantised(x)

    def sample(self, noise: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """A draw, (B, C, H, W), in [0, 1].

        ``noise``: uniforms (B, H, W, K) to choose the component with, and (B, H, W, C) for the colours.
        Each colour is drawn given the levels of those before it, as ``log_prob`` conditions on them.
        """
        u_mix, u_colours = (u.movedim(-1, 1) for u in (self._noise() if noise is None else noise))
        gumbel = -torch.log(-torch.log(u_mix.clamp(NOISE_EDGE, 1 - NOISE_EDGE)))
        component = (self.mix_logits + gumbel).argmax(dim=1)  # a draw from softmax(mix_logits)
        scales = _choose(self.log_scales, component).exp()
        values = _choose(self.means, component) + scales * logistic_noise(u_colours, NOISE_EDGE)
        coefficients = _choose(self.coefficients, component)
        colours: list[Tensor] = []  # in [0, 1]
        for c in range(values.shape[1]):
            lean = sum(coefficients[:, _first(c) + b] * (2 * colours[b] - 1) for b in range(c))
            x = self._to_unit(values[:, c] + lean)
            colours.append(x if self.reference else self._quantised(x))
        return torch.stack(colours, dim=1)

    def _noise(self) -> tuple[Tensor, Tensor]:
        batch, channels, n_mixtures, *size = self.means.shape
        return (
            self.means.new_empty(batch, *size, n_mixtures).uniform_(),
            self.means.new_empty(batch, *size, channels).uniform_(),
        )

    def _conditional_means(self, y: Tensor | None) -> Tensor:
        """Means given the colours before in y, (B, C, K, H, W); without y, given those colours' own means."""
        means: list[Tensor] = []
        for c in range(self.means.shape[1]):
            before = [means[b] if y is None else y[:, b] for b in range(c)]
            lean = sum(self.coefficients[:, _first(c) + b] * value for b, value in enumerate(before))
            means.append(self.means[:, c] + lean)
        return torch.stack(means, dim=1)

    def _exact_mass(self, y: Tensor, distance: Tensor) -> Tensor:
        inverse_scale = torch.exp(-self.log_scales)
        half = 1 / (self.n_levels - 1)
        is_first, is_last = y < -1 + half, y > 1 - half
        below, above = (distance - half) * inverse_scale, (distance + half) * inverse_scale
        return log_bin_mass(below, above, math.log(2 * half) - self.log_scales, is_first, is_last)

    def _published_mass(self, y: Tensor, distance: Tensor) -> Tensor:
        """Mass from a difference of sigmoids, or where that is below 1e-5, the density at the middle of the bin."""
        inverse_scale = torch.exp(-self.log_scales)
        half = 1 / (self.n_levels - 1)
        above, below = (distance + half) * inverse_scale, (distance - half) * inverse_scale
        middle = distance * inverse_scale
        mass = torch.sigmoid(above) - torch.sigmoid(below)
        density = middle - self.log_scales - 2 * softplus(middle) + math.log(2 * half)
        between = torch.where(mass > 1e-5, mass.clamp(min=1e-12).log(), density)
        return torch.where(y < -0.999, above - softplus(above), torch.where(y > 0.999, -softplus(below), between))

    def _to_unit(self, y: Tensor) -> Tensor:
        return (y.clamp(-1, 1) + 1) / 2

    def _quantised(self, x: Tensor) -> Tensor:
        """The level nearest to x."""
        return torch.round(x * (self.n_levels - 1)) / (self.n_levels - 1)


def _first(c: int) -> int:
    """Where colour c's coefficients begin."""
    return c * (c - 1) // 2


def _choose(per_component: Tensor, component: Tensor) -> Tensor:
    """(B, N, K, H, W) at ``component`` (B, H, W) -> (B, N, H, W)."""
    batch, n, _, height, width = per_component.shape
    index = component[:, None, None].expand(batch, n, 1, height, width)
    return per_component.gather(2, index).squeeze(2)
