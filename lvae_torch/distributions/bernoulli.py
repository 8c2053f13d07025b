"""Bernoulli likelihood for binary images, or for grey values read as probabilities; colours are independent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from lvae_torch.distributions.noise import uniform_like
from lvae_torch.distributions.precision import widened

FLOOR = -100.0  # the reference's library floors each logarithm here


@dataclass(frozen=True)
class Bernoulli:
    """p(x = 1) = sigmoid(logits), independently per sub-pixel."""

    logits: Tensor  # (B, C, H, W)
    reference: bool = False
    """Floor each logarithm at -100, as the original implementations do."""

    @staticmethod
    def n_params(channels: int) -> int:
        """Number of output channels that the network needs for images of ``channels`` colours."""
        return channels

    @classmethod
    def from_params(cls, params: Tensor, reference: bool = False) -> Bernoulli:
        return cls(widened(params), reference)

    def log_prob(self, x: Tensor) -> Tensor:
        """Nats per image, (B,), for x, (B, C, H, W), of 0 and 1; for x in between, minus the cross-entropy."""
        if self.reference:
            log_one, log_zero = (logsigmoid(signed).clamp(min=FLOOR) for signed in (self.logits, -self.logits))
            return (x * log_one + (1 - x) * log_zero).flatten(1).sum(dim=1)
        log_masses: Tensor = _LogMass.apply(self.logits, x)
        return log_masses.flatten(1).sum(dim=1)

    def mean(self) -> Tensor:
        return torch.sigmoid(self.logits)

    def mode(self) -> Tensor:
        """The more probable value, (B, C, H, W); 0 at a tie."""
        return (self.logits > 0).to(self.logits.dtype)

    def sample(self, noise: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """A draw, (B, C, H, W), from uniform ``noise`` of that shape if given; ``temperature`` divides the logits."""
        u = uniform_like(self.logits) if noise is None else noise
        return (u < torch.sigmoid(self.logits / temperature)).to(self.logits.dtype)


class _LogMass(torch.autograd.Function):
    """x l - log(1 + e^l) for logits l, element-wise, with its gradient x - sigmoid(l).

    log(1 + e^l) = max(l, 0) - log(max(s, 1 - s)) with s = sigmoid(l). One sigmoid gives the value and the gradient,
    and no log1p is needed, which is seven times slower than log on a CPU. The result is exact to the rounding of s.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, x: Tensor) -> Tensor:
        s = logits.sigmoid()
        ctx.save_for_backward(s, x)
        log_larger = (s - 0.5).abs_().add_(0.5).log_()
        return logits.clamp(min=0).neg_().addcmul_(x, logits).add_(log_larger)  # large terms cancel first

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        s, x = ctx.saved_tensors
        return (x - s).mul_(grad), None
