"""Distributions of codes, whole numbers 0 .. n_codes - 1: what a VQ-VAE has for prior and posterior.

One number for each of a latent map's positions, int64 (B, 1, H, W). Densities are masses, in nats, element-wise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lvae_torch.distributions.noise import integers_like


@dataclass(frozen=True)
class UniformCodes:
    """Every code is equally likely."""

    like: Tensor  # (B, 1, H, W): for its shape and its device
    n_codes: int

    @property
    def mean(self) -> Tensor:
        """Code 0: there is no mean of names, and all are equally likely."""
        return torch.zeros_like(self.like, dtype=torch.int64)

    def at_noise(self, eps: Tensor) -> Tensor:
        """The code in whose n-th part of the normal distribution ``eps``, (B, 1, H, W), lies."""
        part = torch.special.ndtr(eps) * self.n_codes
        return part.long().clamp(max=self.n_codes - 1)

    def rsample(self, temperature: float = 1.0) -> Tensor:
        """A draw; it is as uniform at any temperature."""
        return integers_like(self.like, self.n_codes)

    def log_prob(self, z: Tensor) -> Tensor:
        return torch.full(z.shape, -math.log(self.n_codes), device=z.device)


@dataclass(frozen=True)
class CertainCodes:
    """The given codes and no others: an encoder that leaves nothing to chance."""

    codes: Tensor  # (B, 1, H, W), int64
    n_codes: int

    @property
    def mean(self) -> Tensor:
        return self.codes

    def at_noise(self, eps: Tensor) -> Tensor:
        return self.codes

    def rsample(self, temperature: float = 1.0) -> Tensor:
        return self.codes

    def log_prob(self, z: Tensor) -> Tensor:
        """0 where z is the code, minus infinity elsewhere."""
        return torch.zeros(z.shape, device=z.device).masked_fill(z != self.codes, -math.inf)

    def kl(self, p: UniformCodes) -> Tensor:
        """KL(self || p): log n_codes, wherever the codes are."""
        return -p.log_prob(self.codes)

    def counts(self) -> Tensor:
        """How often each code occurs, (n_codes,), float32; nothing waits for the device."""
        ones = torch.ones(self.codes.numel(), device=self.codes.device)
        return ones.new_zeros(self.n_codes).scatter_add_(0, self.codes.flatten(), ones)


def perplexity(counts: Tensor) -> Tensor:
    """exp(entropy of the usage), (): as many equally frequent codes would be as varied. counts: (n_codes,)."""
    share = counts / counts.sum().clamp(min=1)
    return torch.special.entr(share).sum().exp()


def used_fraction(counts: Tensor) -> Tensor:
    """Share of the codes that occur at all, ()."""
    return (counts > 0).to(counts.dtype).mean()
