"""Logistic distributions cut into the bins of pixel values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lvae_torch.distributions.noise import uniform_like
from lvae_torch.distributions.precision import widened

MIN_LOG_SCALE = -7.0
NOISE_EDGE = 1e-7  # uniforms stay this far from 0 and 1, where the logistic quantile is infinite
NARROW = 1e-6  # below it, log(1 - exp(-width)) is its series in full double precision


def log_bin_mass(below: Tensor, above: Tensor, log_width: Tensor, is_first: Tensor, is_last: Tensor) -> Tensor:
    """log(sigmoid(above) - sigmoid(below)), element-wise, exact also where both sides round to the same float.

    ``below`` and ``above`` are a bin's standardised edges, ``log_width`` = log(above - below); the first bin
    reaches down to minus infinity, the last up to plus infinity. From
    sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)).
    """
    log_above = logsigmoid(above)
    log_below = logsigmoid(-below)
    between = log_above + log_below + _log_one_minus_exp(log_width)
    return torch.where(is_first, log_above, torch.where(is_last, log_below, between))


def _log_one_minus_exp(log_width: Tensor) -> Tensor:
    """log(1 - exp(-width)), finite with finite gradients also where the width underflows to zero."""
    width = log_width.exp()
    wide = torch.log(-torch.expm1(-width.clamp(min=NARROW)))  # clamp: a branch not taken must not give NaN gradients
    return torch.where(width > NARROW, wide, log_width - 0.5 * width)


def logistic_noise(u: Tensor, edge: float) -> Tensor:
    """Standard logistic noise from uniforms, kept ``edge`` away from 0 and 1."""
    u = u.clamp(edge, 1 - edge)
    return u.log() - torch.log1p(-u)


@dataclass(frozen=True)
class DiscretizedLogistic:
    """One logistic per sub-pixel over ``n_levels`` bins that tile [0, 1]; the outer bins are open."""

    location: Tensor  # (B, C, H, W)
    log_scale: Tensor  # (B, C, H, W)
    n_levels: int = 256
    reference: bool = False
    """As the original LVAE: 1e-7 added to each bin's mass, means not clipped, modes and samples not quantised."""

    @staticmethod
    def n_params(channels: int) -> int:
        """Channels of the network's head for images of ``channels`` colours."""
        return 2 * channels

    @classmethod
    def from_params(cls, params: Tensor, n_levels: int = 256, reference: bool = False) -> DiscretizedLogistic:
        """Location around 0.5 and log scale around -1, (B, 2C, H, W)."""
        location, log_scale = widened(params).chunk(2, dim=1)
        return cls(location + 0.5, (log_scale - 1).clamp(min=MIN_LOG_SCALE), n_levels, reference)

    def log_prob(self, x: Tensor) -> Tensor:
        """Nats per image, (B,); x is (B, C, H, W), one of the levels k / (n_levels - 1)."""
        k = torch.round(x * (self.n_levels - 1))
        inverse_scale = torch.exp(-self.log_scale)
        below = (k / self.n_levels - self.location) * inverse_scale
        above = ((k + 1) / self.n_levels - self.location) * inverse_scale
        is_first, is_last = k < 1, k > self.n_levels - 2
        if self.reference:
            cdf_below = torch.where(is_first, 0.0, torch.sigmoid(below))
            cdf_above = torch.where(is_last, 1.0, torch.sigmoid(above))
            log_mass = torch.log(cdf_above - cdf_below + 1e-7)
        else:
            log_width = -self.log_scale - math.log(self.n_levels)
            log_mass = log_bin_mass(below, above, log_width, is_first, is_last)
        return log_mass.flatten(1).sum(dim=1)

    def mean(self) -> Tensor:
        """The location, within [0, 1]: E[x] to half a level, but for the mass that the open ends move."""
        return self.location if self.reference else self.location.clamp(0, 1)

    def mode(self) -> Tensor:
        """The location's level: the likeliest, unless the scale is so wide that an open end holds more."""
        return self.location if self.reference else self._quantised(self.location)

    def sample(self, noise: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """A draw, (B, C, H, W), in [0, 1]; ``noise``: uniforms to draw it from; ``temperature`` scales the scale."""
        u = uniform_like(self.location) if noise is None else noise
        x = self.location + temperature * self.log_scale.exp() * logistic_noise(u, NOISE_EDGE)
        return x.clamp(0, 1) if self.reference else self._quantised(x)

    def _quantised(self, x: Tensor) -> Tensor:
        """The level whose bin holds x."""
        return torch.floor(x * self.n_levels).clamp(0, self.n_levels - 1) / (self.n_levels - 1)
