"""A likelihood of fewer levels than the images have that it is asked about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class OfLevels(Protocol):
    """p(x) of images whose pixels lie on levels in [0, 1]."""

    def log_prob(self, x: Tensor) -> Tensor: ...

    def mean(self) -> Tensor: ...

    def mode(self) -> Tensor: ...

    def sample(self, *, temperature: float = 1.0) -> Tensor: ...


@dataclass(frozen=True)
class CoarseLikelihood:
    """``likelihood`` of ``n_levels``, asked about images of ``n_levels_seen``, a multiple: these are cut first."""

    likelihood: OfLevels
    n_levels: int
    n_levels_seen: int

    def log_prob(self, x: Tensor) -> Tensor:
        """Nats per image, (B,), of x cut to the fewer levels; x is (B, C, H, W), k / (n_levels_seen - 1)."""
        k = torch.round(x * (self.n_levels_seen - 1))
        cut = torch.floor(k * self.n_levels / self.n_levels_seen)
        return self.likelihood.log_prob(cut / (self.n_levels - 1))

    def mean(self) -> Tensor:
        return self.likelihood.mean()

    def mode(self) -> Tensor:
        return self.likelihood.mode()

    def sample(self, *, temperature: float = 1.0) -> Tensor:
        return self.likelihood.sample(temperature=temperature)
