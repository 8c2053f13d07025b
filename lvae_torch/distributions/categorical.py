"""Categorical likelihood: a free probability for each level of each sub-pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lvae_torch.distributions.noise import uniform_like
from lvae_torch.distributions.precision import widened


def codes_of(x: Tensor, n_levels: int) -> Tensor:
    """The level k, int64, of each x = k / (n_levels - 1)."""
    return torch.round(x * (n_levels - 1)).long()


@dataclass(frozen=True)
class Categorical:
    """p(x = k / (K - 1)) = softmax(logits)[k], independently per sub-pixel."""

    logits: Tensor  # (B, K, C, H, W)

    @staticmethod
    def n_params(channels: int, n_levels: int) -> int:
        """Number of output channels that the network needs for images of ``channels`` colours."""
        return channels * n_levels

    @classmethod
    def from_params(cls, params: Tensor, n_levels: int) -> Categorical:
        """Read logits (B, KC, H, W), in which all colours of a level lie together."""
        return cls(widened(params).unflatten(1, (n_levels, -1)))

    @property
    def n_levels(self) -> int:
        return self.logits.shape[1]

    def log_prob(self, x: Tensor) -> Tensor:
        """Nats per image, (B,); x is (B, C, H, W), with values on the levels."""
        codes = codes_of(x, self.n_levels)
        return -cross_entropy(self.logits, codes, reduction="none").flatten(1).sum(dim=1)

    def mean(self) -> Tensor:
        return (self.logits.softmax(dim=1) * self._levels()).sum(dim=1)

    def mode(self) -> Tensor:
        """The most probable level, (B, C, H, W); the lowest one at a tie."""
        return self._scaled(self.logits.argmax(dim=1))

    def sample(self, noise: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """A draw, (B, C, H, W), from uniform ``noise`` of that shape if given; ``temperature`` divides the logits."""
        probabilities = (self.logits / temperature).softmax(dim=1)
        u = uniform_like(probabilities[:, 0]) if noise is None else noise
        below = probabilities.cumsum(dim=1) <= u.unsqueeze(1)
        return self._scaled(below.sum(dim=1).clamp(max=self.n_levels - 1))  # rounding can keep the last sum below u

    def _levels(self) -> Tensor:
        k = torch.arange(self.n_levels, dtype=self.logits.dtype, device=self.logits.device)
        return self._scaled(k).view(-1, 1, 1, 1)

    def _scaled(self, codes: Tensor) -> Tensor:
        return codes.to(self.logits.dtype) / (self.n_levels - 1)
