"""Gaussian likelihood. It is a density, so it cannot be compared with likelihoods of discrete pixels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lvae_torch.distributions.gaussian import DiagonalGaussian
from lvae_torch.distributions.noise import normal_like


@dataclass(frozen=True)
class GaussianLikelihood:
    """N(x; mean, std^2), independently per sub-pixel. Means and samples can leave [0, 1]: clip them for pictures."""

    gaussian: DiagonalGaussian  # (B, C, H, W)

    @staticmethod
    def n_params(channels: int) -> int:
        """Number of output channels that the network needs for images of ``channels`` colours."""
        return 2 * channels

    @classmethod
    def from_params(cls, params: Tensor) -> GaussianLikelihood:
        """Read (B, 2C, H, W) as mean and log variance."""
        return cls(DiagonalGaussian.from_mean_and_log_var(params))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density in nats per image, (B,)."""
        return self.gaussian.log_prob(x).flatten(1).sum(dim=1)

    def mean(self) -> Tensor:
        return self.gaussian.mean

    def mode(self) -> Tensor:
        return self.gaussian.mean

    def sample(self, noise: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """A draw, (B, C, H, W), from standard normal ``noise`` if given; ``temperature`` multiplies the std."""
        eps = normal_like(self.gaussian.mean) if noise is None else noise
        return self.gaussian.at_noise(temperature * eps)
