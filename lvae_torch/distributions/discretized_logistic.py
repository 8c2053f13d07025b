"""Logistic distributions discretized to pixel levels (as in PixelCNN++, https://arxiv.org/abs/1701.05517, Eq. 2)."""

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
NARROW = 1e-6  # below this width, the series of log(1 - exp(-width)) is exact to double precision


def log_bin_mass(below: Tensor, above: Tensor, log_width: Tensor, is_first: Tensor, is_last: Tensor) -> Tensor:
    """log(sigmoid(above) - sigmoid(below)), element-wise, exact even if both sigmoids round to the same float.

    ``below`` and ``above`` are the standardised edges of a bin and ``log_width`` is log(above - below). The first bin
    extends to minus infinity, the last to plus infinity. The formula follows from
    sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)).
    """
    log_above = logsigmoid(above)
    log_below = logsigmoid(-below)
    between = log_above + log_below + _log_one_minus_exp(log_width)
    return torch.where(is_first, log_above, torch.where(is_last, log_below, between))


def _log_one_minus_exp(log_width: Tensor) -> Tensor:
    """log(1 - exp(-width)), finite and with finite gradients even if the width underflows to zero."""
    width = log_width.exp()
    wide = torch.log(-torch.expm1(-width.clamp(min=NARROW)))  # clamp, or the unused branch gives NaN gradients
    return torch.where(width > NARROW, wide, log_width - 0.5 * width)


def logistic_noise(u: Tensor, edge: float) -> Tensor:
    """Standard logistic noise from uniform noise u, which is kept ``edge`` away from 0 and 1."""
    u = u.clamp(edge, 1 - edge)
    return u.log() - torch.log1p(-u)


@dataclass(frozen=True)
class DiscretizedLogistic:
    """One logistic per sub-pixel over ``n_levels`` bins that tile [0, 1]; the outer bins extend to infinity."""

    location: Tensor  # (B, C, H, W)
    log_scale: Tensor  # (B, C, H, W)
    n_levels: int = 256
    reference: bool = False
    """Follow the original LVAE: add 1e-7 to each bin's mass, do not clip means, do not quantise modes and samples."""

    @staticmethod
    def n_params(channels: int) -> int:
        """Number of output channels that the network needs for images of ``channels`` colours."""
        return 2 * channels

    @classmethod
    def from_params(cls, params: Tensor, n_levels: int = 256, reference: bool = False) -> DiscretizedLogistic:
        """Read (B, 2C, H, W) as offsets from location 0.5 and log scale -1."""
        location, log_scale = widened(params).chunk(2, dim=1)
        return cls(location + 0.5, (log_scale - 1).clamp(min=MIN_LOG_SCALE), n_levels, reference)

    def log_prob(self, x: Tensor) -> Tensor:
        """Nats per image, (B,); x is (B, C, H, W), with values on the levels k / (n_levels - 1)."""
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
        """The location clipped to [0, 1]: E[x] to half a level, except for the mass in the open outer bins."""
        return self.location if self.reference else self.location.clamp(0, 1)

    def mode(self) -> Tensor:
        """The level at the location: the most probable one, unless a wide scale gives an outer bin more mass."""
        return self.location if self.reference else self._quantised(self.location)

    def sample(self, noise: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """A draw, (B, C, H, W), in [0, 1], from uniform ``noise`` if given; ``temperature`` multiplies the scale."""
        u = uniform_like(self.location) if noise is None else noise
        x = self.location + temperature * self.log_scale.exp() * logistic_noise(u, NOISE_EDGE)
        return x.clamp(0, 1) if self.reference else self._quantised(x)

    def _quantised(self, x: Tensor) -> Tensor:
        """The level whose bin contains x."""
        return torch.floor(x * self.n_levels).clamp(0, self.n_levels - 1) / (self.n_levels - 1)
