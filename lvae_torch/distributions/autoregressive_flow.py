"""An autoregressive flow: each entry has a shift and a scale that depend on the entries before it
(Papamakarios et al. 2017, https://arxiv.org/abs/1705.07057).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lvae_torch.distributions.gaussian import LOG_2PI, DiagonalGaussian
from lvae_torch.distributions.noise import normal_like
from lvae_torch.distributions.precision import widened


@dataclass(frozen=True)
class AutoregressiveFlow:
    """p(z) where eps_i = z_i * scale_i + shift_i is standard normal; scale_i and shift_i depend on z_1 .. z_{i-1}.

    log p(z) takes one pass of the network, a draw takes one pass per entry.
    """

    network: Callable[[Tensor], Tensor]  # (B, D) -> (B, 2D): shifts, then log scales
    zeros: Tensor  # (B, D): gives shape, type and device of the draws
    bounded: bool = True
    """Pass the log scales through a tanh, so that scales lie between 1/e and e."""

    @property
    def mean(self) -> Tensor:
        """The draw of zero noise, (B, D); the mean itself has no closed form."""
        return self.at_noise(self.zeros)

    def noise_of(self, z: Tensor) -> Tensor:
        """The noise that gives z, (B, D); undoes ``at_noise``."""
        return self.noise_and_log_scale(z)[0]

    def noise_and_log_scale(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The noise that gives z, and the log scales, (B, D) each."""
        shift, log_scale = self._shift_and_log_scale(z)
        return z * log_scale.exp() + shift, log_scale

    def at_noise(self, eps: Tensor) -> Tensor:
        """The draw, (B, D), from standard normal noise ``eps``, computed one entry after the other."""
        z = torch.zeros_like(eps)
        for i in range(eps.shape[1]):
            z = self._with_entry(z, i, self._drawn_entry(z, i, eps))
        return z

    def rsample(self, temperature: float = 1.0) -> Tensor:
        """A draw; ``temperature`` scales its noise."""
        return self.at_noise(temperature * normal_like(self.zeros))

    def filled(self, z: Tensor, keep: Tensor, temperature: float = 1.0) -> Tensor:
        """z, (B, D), where ``keep``, a mask that broadcasts to it, is on; elsewhere draws from
        p(z_i | z_1 .. z_{i-1}), so given what is kept before them."""
        eps, keep = temperature * normal_like(self.zeros), keep.expand_as(z)
        for i in range(z.shape[1]):
            z = self._with_entry(z, i, torch.where(keep[:, i], z[:, i], self._drawn_entry(z, i, eps)))
        return z

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z_i | z_1 .. z_{i-1}), (B, D)."""
        eps, log_scale = self.noise_and_log_scale(z)
        return -0.5 * (eps**2 + LOG_2PI) + log_scale

    def entry(self, i: int, z: Tensor) -> DiagonalGaussian:
        """p(z_i | z_1 .. z_{i-1}), (B,), of which only the entries of z, (B, D), before i count."""
        shift, log_scale = (values[:, i] for values in self._shift_and_log_scale(z))
        return DiagonalGaussian(-shift * (-log_scale).exp(), -log_scale)

    def _drawn_entry(self, z: Tensor, i: int, eps: Tensor) -> Tensor:
        """The draw of entry i from its noise, (B,), given the entries of z before it."""
        shift, log_scale = self._shift_and_log_scale(z)
        return (eps[:, i] - shift[:, i]) * (-log_scale[:, i]).exp()

    @staticmethod
    def _with_entry(z: Tensor, i: int, entry: Tensor) -> Tensor:
        return torch.cat([z[:, :i], entry[:, None], z[:, i + 1 :]], dim=1)  # not in place, for autograd

    def _shift_and_log_scale(self, z: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = widened(self.network(z)).chunk(2, dim=1)
        return shift, torch.tanh(log_scale) if self.bounded else log_scale
