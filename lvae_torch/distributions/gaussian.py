"""The diagonal Gaussian, used for posteriors, priors and a likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from lvae_torch.distributions.noise import normal_like
from lvae_torch.distributions.precision import widened

LOG_2PI = math.log(2 * math.pi)


def log_softplus(raw: Tensor, beta: float = 1.0) -> Tensor:
    """log(log(1 + e^(beta raw)) / beta), finite and with a finite gradient for every ``raw``."""
    if beta != 1.0:
        return log_softplus(beta * raw) - math.log(beta)
    floor = -30.0  # below it, softplus(raw) equals e^raw in float64 until it underflows
    return torch.where(raw < floor, raw, softplus(raw.clamp(min=floor)).log())


@dataclass(frozen=True)
class SmoothScale:
    """The function from a network's output to a scale; ``beta`` < 1 flattens it ("gradient smoothing").

    See Hazami et al. 2022, https://arxiv.org/abs/2203.13751.
    """

    kind: Literal["std", "logstd"] = "logstd"
    """std: log(1 + e^(beta raw)) / beta; logstd: e^(beta raw)."""
    beta: float = 1.0

    def log(self, raw: Tensor) -> Tensor:
        """The logarithm of the scale, in the shape of ``raw``."""
        return log_softplus(raw, self.beta) if self.kind == "std" else self.beta * raw


@dataclass(frozen=True)
class DiagonalGaussian:
    """Independent Gaussians, one per entry of ``mean``. Every result is element-wise, in nats."""

    mean: Tensor  # (B, ...)
    log_std: Tensor  # (B, ...)

    @classmethod
    def from_mean_and_log_var(cls, params: Tensor, max_log_std: float | None = None) -> DiagonalGaussian:
        """Split a network output (B, 2Z, ...) into mean and log variance, each (B, Z, ...).

        Half precision is converted to float32 first, because a KL is a small difference of large numbers.
        ``max_log_std`` bounds |log std|, so that no exponential overflows.
        """
        mean, log_var = widened(params).chunk(2, dim=1)
        log_std = 0.5 * log_var
        if max_log_std is not None:
            log_std = log_std.clamp(-max_log_std, max_log_std)
        return cls(mean, log_std)

    @classmethod
    def from_mean_and_log_std(cls, params: Tensor) -> DiagonalGaussian:
        """Split a network output (B, 2Z, ...) into mean and log standard deviation, each (B, Z, ...)."""
        return cls(*widened(params).chunk(2, dim=1))

    @classmethod
    def from_mean_and_softplus(cls, params: Tensor) -> DiagonalGaussian:
        """Split a network output (B, 2Z, ...) into mean and raw; the variance is softplus(raw), each (B, Z, ...)."""
        mean, raw = widened(params).chunk(2, dim=1)
        return cls(mean, 0.5 * log_softplus(raw))

    @classmethod
    def from_mean_and_scale(cls, params: Tensor, scale: SmoothScale) -> DiagonalGaussian:
        """Split a network output (B, 2Z, ...) into mean and raw; ``scale`` turns raw into the std, each (B, Z, ...)."""
        mean, raw = widened(params).chunk(2, dim=1)
        return cls(mean, scale.log(raw))

    @property
    def std(self) -> Tensor:
        return self.log_std.exp()

    def at_noise(self, eps: Tensor) -> Tensor:
        """The sample for standard normal noise ``eps``: mean + std * eps."""
        return self.mean + self.std * eps

    def noise_of(self, z: Tensor) -> Tensor:
        """The standard normal noise that gives z; undoes ``at_noise``."""
        return (z - self.mean) * (-self.log_std).exp()

    def rsample(self, temperature: float = 1.0) -> Tensor:
        """A reparameterised sample; ``temperature`` multiplies the standard deviation."""
        return self.at_noise(temperature * normal_like(self.mean))

    def log_prob(self, z: Tensor) -> Tensor:
        """log N(z; mean, std^2), element-wise."""
        return -0.5 * (self.noise_of(z) ** 2 + LOG_2PI) - self.log_std

    def kl(self, p: DiagonalGaussian) -> Tensor:
        """KL(self || p) in closed form, element-wise; exactly zero if both are equal."""
        shift = (self.mean - p.mean) * (-p.log_std).exp()
        log_ratio = self.log_std - p.log_std
        return 0.5 * (shift**2 + torch.expm1(2 * log_ratio)) - log_ratio  # expm1: exact near q = p

    def merge(self, other: DiagonalGaussian) -> DiagonalGaussian:
        """The normalised product of both densities: precisions add, and weight the means (Sonderby et al. 2016).

        It is computed with logarithms, so that no ratio of widths overflows.
        """
        log_odds = 2 * (other.log_std - self.log_std)  # log odds of self's share of the precision
        mean = torch.lerp(other.mean, self.mean, torch.sigmoid(log_odds))
        return DiagonalGaussian(mean, self.log_std + 0.5 * logsigmoid(log_odds))

    def relative_to(self, base: DiagonalGaussian) -> DiagonalGaussian:
        """Apply self as a correction to ``base``: means add, stds multiply."""
        return DiagonalGaussian(base.mean + self.mean, base.log_std + self.log_std)
