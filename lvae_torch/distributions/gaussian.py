"""The diagonal Gaussian, used for posteriors, priors and a likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid, softplus

from lvae_torch.distributions.noise import normal_like
from lvae_torch.distributions.precision import widened

LOG_2PI = math.log(2 * math.pi)
FLOOR = -30.0
"""Below it softplus(x) equals e^x in float64, until it underflows."""


def log_softplus(raw: Tensor, beta: float = 1.0) -> Tensor:
    """log(log(1 + e^(beta raw)) / beta), finite and with a finite gradient for every ``raw``."""
    y: Tensor = _LogSoftplus.apply(raw, beta)
    return y


@dataclass(frozen=True)
class SmoothScale:
    """The function from a network's output to a scale; ``beta`` < 1 flattens it ("gradient smoothing").

    See Hazami et al. 2022, https://arxiv.org/abs/2203.13751.
    """

    kind: Literal["std", "logstd"] = "logstd"
    """std: log(1 + e^(beta raw)) / beta; logstd: e^(beta raw)."""
    beta: float = 1.0

    def log(self, raw: Tensor) -> Tensor:
        """The logarithm of the scale, in the shape of ``raw``."""
        return log_softplus(raw, self.beta) if self.kind == "std" else self.beta * raw


@dataclass(frozen=True)
class DiagonalGaussian:
    """Independent Gaussians, one per entry of ``mean``. Every result is element-wise, in nats."""

    mean: Tensor  # (B, ...)
    log_std: Tensor  # (B, ...)

    @classmethod
    def from_mean_and_log_var(cls, params: Tensor, max_log_std: float | None = None) -> DiagonalGaussian:
        """Split a network output (B, 2Z, ...) into mean and log variance, each (B, Z, ...).

        Half precision is converted to float32 first, because a KL is a small difference of large numbers.
        ``max_log_std`` bounds |log std|, so that no exponential overflows.
        """
        mean, log_var = widened(params).chunk(2, dim=1)
        log_std = 0.5 * log_var
        if max_log_std is not None:
            log_std = log_std.clamp(-max_log_std, max_log_std)
        return cls(mean, log_std)

    @classmethod
    def from_mean_and_log_std(cls, params: Tensor) -> DiagonalGaussian:
        """Split a network output (B, 2Z, ...) into mean and log standard deviation, each (B, Z, ...)."""
        return cls(*widened(params).chunk(2, dim=1))

    @classmethod
    def from_mean_and_softplus(cls, params: Tensor) -> DiagonalGaussian:
        """Split a network output (B, 2Z, ...) into mean and raw; the variance is softplus(raw), each (B, Z, ...)."""
        mean, raw = widened(params).chunk(2, dim=1)
        return cls(mean, 0.5 * log_softplus(raw))

    @classmethod
    def from_mean_and_scale(cls, params: Tensor, scale: SmoothScale) -> DiagonalGaussian:
        """Split a network output (B, 2Z, ...) into mean and raw; ``scale`` turns raw into the std, each (B, Z, ...)."""
        mean, raw = widened(params).chunk(2, dim=1)
        return cls(mean, scale.log(raw))

    @property
    def std(self) -> Tensor:
        return self.log_std.exp()

    def at_noise(self, eps: Tensor) -> Tensor:
        """The sample for standard normal noise ``eps``: mean + std * eps."""
        return self.mean + self.std * eps

    def noise_of(self, z: Tensor) -> Tensor:
        """The standard normal noise that gives z; undoes ``at_noise``."""
        return (z - self.mean) * (-self.log_std).exp()

    def rsample(self, temperature: float = 1.0) -> Tensor:
        """A reparameterised sample; ``temperature`` multiplies the standard deviation."""
        eps = normal_like(self.mean)
        return self.at_noise(eps if temperature == 1.0 else temperature * eps)

    def filled(self, z: Tensor, keep: Tensor, temperature: float = 1.0) -> Tensor:
        """z where ``keep``, a mask that broadcasts to it, is on, and a draw elsewhere."""
        return torch.where(keep, z, self.rsample(temperature))

    def log_prob(self, z: Tensor) -> Tensor:
        """log N(z; mean, std^2), element-wise."""
        return -0.5 * (self.noise_of(z) ** 2 + LOG_2PI) - self.log_std

    def kl(self, p: DiagonalGaussian) -> Tensor:
        """KL(self || p) in closed form, element-wise; exactly zero if both are equal."""
        return kl_of_all([(self, p)])[0]

    def log_ratio(self, p: DiagonalGaussian, z: Tensor) -> Tensor:
        """log self(z) - log p(z), element-wise."""
        parts = torch.broadcast_tensors(z, self.mean, self.log_std, p.mean, p.log_std)
        units: Tensor = _LogRatio.apply(*parts)
        return units

    def merge(self, other: DiagonalGaussian) -> DiagonalGaussian:
        """The normalised product of both densities: precisions add, and weight the means (Sonderby et al. 2016).

        It is computed with logarithms, so that no ratio of widths overflows.
        """
        log_odds = 2 * (other.log_std - self.log_std)  # log odds of self's share of the precision
        mean = torch.lerp(other.mean, self.mean, torch.sigmoid(log_odds))
        return DiagonalGaussian(mean, self.log_std + 0.5 * logsigmoid(log_odds))

    def relative_to(self, base: DiagonalGaussian) -> DiagonalGaussian:
        """Apply self as a correction to ``base``: means add, stds multiply."""
        return DiagonalGaussian(base.mean + self.mean, base.log_std + self.log_std)


def kl_of_all(pairs: Sequence[tuple[DiagonalGaussian, DiagonalGaussian]]) -> list[Tensor]:
    """KL(q || p) of each pair (q, p), element-wise; on a card each operation is one kernel for many of them."""
    broadcast = (torch.broadcast_tensors(q.mean, q.log_std, p.mean, p.log_std) for q, p in pairs)
    units: tuple[Tensor, ...] = _KL.apply(*(tensor for of_pair in broadcast for tensor in of_pair))
    return list(units)


class _KL(torch.autograd.Function):
    """KL(q || p) = (shift^2 + expm1(2 r)) / 2 - r, with shift = (m_q - m_p) / s_p and r = log s_q - log s_p.

    Parameters of any number of pairs, four of each, one after the other. It keeps these alone, which live anyhow, and
    computes the few intermediate maps again.
    """

    @staticmethod
    def forward(ctx: Any, *params: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*params)
        shift, _, r = _shifts(params)
        wider = torch._foreach_mul(r, 2.0)
        torch._foreach_expm1_(wider)  # exact near q = p
        torch._foreach_mul_(shift, shift)
        torch._foreach_add_(shift, wider)
        torch._foreach_mul_(shift, 0.5)
        torch._foreach_sub_(shift, r)
        return tuple(shift)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor, ...]:
        shift, to_mean, wider = _shifts(ctx.saved_tensors)
        torch._foreach_mul_(wider, 2.0)
        torch._foreach_expm1_(wider)
        torch._foreach_mul_(to_mean, shift)
        torch._foreach_mul_(to_mean, g)
        torch._foreach_mul_(shift, shift)
        torch._foreach_add_(shift, wider)
        torch._foreach_mul_(shift, g)
        torch._foreach_neg_(shift)
        torch._foreach_mul_(wider, g)
        of_pairs = zip(to_mean, wider, torch._foreach_neg(to_mean), shift, strict=True)
        return tuple(gradient for of_pair in of_pairs for gradient in of_pair)


def _shifts(params: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], ...]:
    """(m_q - m_p) / s_p, 1 / s_p and log s_q - log s_p of each pair."""
    q_mean, q_log_std, p_mean, p_log_std = (params[k::4] for k in range(4))
    inverse = torch._foreach_neg(p_log_std)
    torch._foreach_exp_(inverse)
    shift = torch._foreach_sub(q_mean, p_mean)
    torch._foreach_mul_(shift, inverse)
    return shift, inverse, torch._foreach_sub(q_log_std, p_log_std)


class _LogSoftplus(torch.autograd.Function):
    """log(softplus(beta raw) / beta); what both passes compute below ``FLOOR``, infinite perhaps, nobody takes."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, beta: float) -> Tensor:
        x = raw if beta == 1.0 else beta * raw
        plus, is_below = softplus(x), x < FLOOR
        ctx.save_for_backward(x, plus, is_below)
        ctx.beta = beta
        y = torch.where(is_below, x, plus.log())
        return y if beta == 1.0 else y.sub_(math.log(beta))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        x, plus, is_below = ctx.saved_tensors
        above = torch.ops.aten.softplus_backward(g / plus, x, 1.0, 20.0)
        to_x = torch.where(is_below, g, above)
        return to_x if ctx.beta == 1.0 else to_x.mul_(ctx.beta), None


class _LogRatio(torch.autograd.Function):
    """log q(z) - log p(z) = (e_p^2 - e_q^2) / 2 + log s_p - log s_q, with e = (z - m) / s; it keeps inputs alone."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, q_mean: Tensor, q_log_std: Tensor, p_mean: Tensor, p_log_std: Tensor) -> Tensor:
        ctx.save_for_backward(z, q_mean, q_log_std, p_mean, p_log_std)
        e_q, e_p = (z - q_mean) * (-q_log_std).exp(), (z - p_mean) * (-p_log_std).exp()
        return e_p.square_().sub_(e_q.square_()).mul_(0.5).add_(p_log_std).sub_(q_log_std)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        z, q_mean, q_log_std, p_mean, p_log_std = ctx.saved_tensors
        q_inverse, p_inverse = (-q_log_std).exp(), (-p_log_std).exp()
        e_q, e_p = (z - q_mean).mul_(q_inverse), (z - p_mean).mul_(p_inverse)
        to_q_mean, to_p_mean = q_inverse.mul_(e_q).mul_(g), p_inverse.mul_(e_p).mul_(g).neg_()
        to_q_log_std, to_p_log_std = e_q.square_().sub_(1).mul_(g), (1 - e_p.square_()).mul_(g)
        return to_q_mean.add(to_p_mean).neg_(), to_q_mean, to_q_log_std, to_p_mean, to_p_log_std
