"""The sum of squared errors as a score for image VAEs, as courses use it; it is not a probability of pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from lvae_torch.distributions.noise import normal_like
from lvae_torch.distributions.precision import widened


@dataclass(frozen=True)
class SquaredError:
    """``log_prob`` is minus the sum of squared errors with pixels on [-1, 1], without factor 1/2 or constant.

    Up to a constant this is a Gaussian of variance 1/2 on [-1, 1]; it has no bits per dimension.
    """

    location: Tensor  # (B, C, H, W), on [-1, 1]

    @staticmethod
    def n_params(channels: int) -> int:
        """Number of output channels that the network needs for images of ``channels`` colours."""
        return channels

    @classmethod
    def from_params(cls, params: Tensor) -> SquaredError:
        return cls(widened(params))

    def log_prob(self, x: Tensor) -> Tensor:
        """Minus the sum of squared errors, (B,); x is (B, C, H, W) in [0, 1]."""
        return -((2 * x - 1 - self.location) ** 2).flatten(1).sum(dim=1)

    def mean(self) -> Tensor:
        """The location in [0, 1], clipped because the network's output can leave that range."""
        return ((self.location + 1) / 2).clamp(0, 1)

    def mode(self) -> Tensor:
        return self.mean()

    def sample(self, noise: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """A draw from that Gaussian, (B, C, H, W), from standard normal ``noise`` if given."""
        eps = normal_like(self.location) if noise is None else noise
        return (self.location + temperature * math.sqrt(0.5) * eps + 1) / 2
