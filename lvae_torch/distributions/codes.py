"""Prior and posterior of a VQ-VAE: distributions of codes, which are whole numbers 0 .. n_codes - 1.

Each position of a latent map holds one code, int64 (B, 1, H, W). Log probabilities are element-wise, in nats.
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

    like: Tensor  # (B, 1, H, W): gives shape and device
    n_codes: int

    @property
    def mean(self) -> Tensor:
        """Code 0, because codes have no mean and are all equally likely."""
        return torch.zeros_like(self.like, dtype=torch.int64)

    def at_noise(self, eps: Tensor) -> Tensor:
        """The code of standard normal noise ``eps``, (B, 1, H, W): each code has an interval of equal probability."""
        part = torch.special.ndtr(eps) * self.n_codes
        return part.long().clamp(max=self.n_codes - 1)

    def noise_of(self, z: Tensor) -> Tensor:
        """The middle of the interval of noise that gives the codes z, (B, 1, H, W); ``at_noise`` gives them back."""
        return torch.special.ndtri((z + 0.5) / self.n_codes)

    def rsample(self, temperature: float = 1.0) -> Tensor:
        """A draw; ``temperature`` has no effect on a uniform distribution."""
        return integers_like(self.like, self.n_codes)

    def filled(self, z: Tensor, keep: Tensor, temperature: float = 1.0) -> Tensor:
        """z where ``keep``, a mask that broadcasts to it, is on, and a draw elsewhere."""
        return torch.where(keep, z, self.rsample(temperature))

    def log_prob(self, z: Tensor) -> Tensor:
        return torch.full(z.shape, -math.log(self.n_codes), device=z.device)


@dataclass(frozen=True)
class CertainCodes:
    """A posterior that is certain of the given codes, from a deterministic encoder."""

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
        """0 where z equals the code, minus infinity elsewhere."""
        return torch.zeros(z.shape, device=z.device).masked_fill(z != self.codes, -math.inf)

    def kl(self, p: UniformCodes) -> Tensor:
        """KL(self || p), which is log n_codes for all codes."""
        return -p.log_prob(self.codes)

    def counts(self) -> Tensor:
        """How often each code occurs, (n_codes,), float32; computed without waiting for the device."""
        ones = torch.ones(self.codes.numel(), device=self.codes.device)
        return ones.new_zeros(self.n_codes).scatter_add_(0, self.codes.flatten(), ones)


def perplexity(counts: Tensor) -> Tensor:
    """exp(entropy of the usage), a scalar: the equivalent number of equally frequent codes. counts: (n_codes,)."""
    share = counts / counts.sum().clamp(min=1)
    return torch.xlogy(share, share).sum().neg().exp()  # torch.special.entr would be compiled at its first use on a GPU


def used_fraction(counts: Tensor) -> Tensor:
    """Share of the codes that occur, a scalar."""
    return (counts > 0).to(counts.dtype).mean()
