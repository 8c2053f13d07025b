"""Gaussian likelihoods with one standard deviation for all of x, whose network gives the means only."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lvae_torch.distributions import DiagonalGaussian, GaussianLikelihood
from lvae_torch.distributions.precision import widened

MOMENTUM = 0.01  # of the average that evaluation uses: the mean squared error of about the last 100 batches
LEAST_VARIANCE = 1e-12  # of a batch that is reconstructed to the last digit


class FixedScale:
    """The standard deviation is given."""

    def __init__(self, std: float) -> None:
        self.log_std = math.log(std)

    def __call__(self, params: Tensor) -> GaussianLikelihood:
        """(B, C, H, W) means -> p(x | z)."""
        mean = widened(params)
        return GaussianLikelihood(DiagonalGaussian(mean, torch.full_like(mean, self.log_std)))


class LearnedScale(nn.Module):
    """The standard deviation is one more weight of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.zeros(()))

    def forward(self, params: Tensor) -> GaussianLikelihood:
        """(B, C, H, W) means -> p(x | z)."""
        mean = widened(params)
        return GaussianLikelihood(DiagonalGaussian(mean, self.log_std.expand_as(mean)))


class OptimalScale(nn.Module):
    """The variance is the batch's mean squared error, the likeliest there is (Rybkin et al. 2021, sigma-VAE).

    So in training; a trained model has one variance, the mean of the last batches', kept as batch norm keeps its own.
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
        """Mean squared error of a batch in training, which is remembered; else what is remembered."""
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
    """N(x; mean, variance) whose variance, in training, waits for x."""

    scale: OptimalScale

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density in nats per image, (B,)."""
        mean = self.gaussian.mean
        log_std = 0.5 * self.scale.variance_of(x, mean).log()
        return GaussianLikelihood(DiagonalGaussian(mean, log_std.expand_as(mean))).log_prob(x)
