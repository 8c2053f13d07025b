"""Gaussian likelihoods with one standard deviation for all of x; the network outputs only the means.

The optimal variance is from sigma-VAE (Rybkin et al. 2021, https://arxiv.org/abs/2006.13202).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lvae_torch.distributions import DiagonalGaussian, GaussianLikelihood
from lvae_torch.distributions.precision import widened

MOMENTUM = 0.01  # evaluation uses the mean squared error averaged over about the last 100 batches
LEAST_VARIANCE = 1e-12  # keeps the logarithm finite if a batch is reconstructed exactly


class FixedScale:
    """The standard deviation is a given number."""

    def __init__(self, std: float) -> None:
        self.log_std = math.log(std)

    def __call__(self, params: Tensor) -> GaussianLikelihood:
        """(B, C, H, W) means -> p(x | z)."""
        mean = widened(params)
        return GaussianLikelihood(DiagonalGaussian(mean, torch.full_like(mean, self.log_std)))


class LearnedScale(nn.Module):
    """The standard deviation is a learned parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.zeros(()))

    def forward(self, params: Tensor) -> GaussianLikelihood:
        """(B, C, H, W) means -> p(x | z)."""
        mean = widened(params)
        return GaussianLikelihood(DiagonalGaussian(mean, self.log_std.expand_as(mean)))


class OptimalScale(nn.Module):
    """In training, the variance is the batch's mean squared error, which maximises the likelihood (sigma-VAE).

    In evaluation it is a moving average over the last training batches, kept in a buffer as batch norm does.
    """

    variance: Tensor
    n_batches: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("n_batches", torch.zeros(()))

    def forward(self, params: Tensor) -> "OptimalGaussian":
        """(B, C, H, W) means -> p(x | z)."""
        mean = widened(params)
        return OptimalGaussian(DiagonalGaussian(mean, 0.5 * self.variance.log().expand_as(mean)), self)

    def variance_of(self, x: Tensor, mean: Tensor) -> Tensor:
        """The batch's mean squared error in training, which also updates the average; in evaluation the average."""
        if not self.training:
            return self.variance
        variance = ((x - mean) ** 2).mean().clamp(min=LEAST_VARIANCE)
        with torch.no_grad():
            self.n_batches += 1
            weight = (1 / self.n_batches).clamp(min=MOMENTUM)  # a plain mean at first
            self.variance.lerp_(variance.to(self.variance.dtype), weight)
        return variance


@dataclass(frozen=True)
class OptimalGaussian(GaussianLikelihood):
    """N(x; mean, variance); in training the variance is computed when x is known."""

    scale: OptimalScale

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density in nats per image, (B,)."""
        mean = self.gaussian.mean
        log_std = 0.5 * self.scale.variance_of(x, mean).log()
        return GaussianLikelihood(DiagonalGaussian(mean, log_std.expand_as(mean))).log_prob(x)
