"""[loss]: the scalar to minimise, and the schedules of beta."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from lvae_torch.cfg.section import whole
from lvae_torch.data.shapes import ImageShape
from lvae_torch.elbo.bounds import Terms, elbo_terms
from lvae_torch.elbo.section import Beta, LossSection
from lvae_torch.models.contract import Output
from lvae_torch.models.layout import copies

Schedule = Callable[[int], float]


def constant_beta(value: float) -> Schedule:
    """β = ``value`` at every step."""
    return lambda step: value


def linear_warmup(steps: int, start: float = 0.0) -> Schedule:
    """β rises from ``start`` at step 0 to 1 at step ``steps`` and stays 1."""
    return lambda step: min(1.0, start + (1.0 - start) * step / steps)


def logistic_warmup(steps: int, sharpness: float = 10.0) -> Schedule:
    """β rises along a logistic curve, rescaled to be exactly 0 at step 0 and 1 from step ``steps`` on."""

    def sigmoid(t: float) -> float:
        return 1.0 / (1.0 + math.exp(-sharpness * (t - 0.5)))

    low, high = sigmoid(0.0), sigmoid(1.0)
    return lambda step: (sigmoid(min(1.0, step / steps)) - low) / (high - low)


def linear_between(first: int, last: int, minimum: float = 0.0) -> Schedule:
    """β rises from 0 at step ``first`` to 1 at step ``last``, never below ``minimum``."""
    return lambda step: min(1.0, max(minimum, (step - first) / (last - first)))


def logistic_growth(middle: float, rate: float) -> Schedule:
    """β = sigmoid(rate * (step - middle)), which is 1/2 at step ``middle``."""
    return lambda step: 0.5 * (1.0 + math.tanh(0.5 * rate * (step - middle)))  # tanh does not overflow


def beta_schedule(beta: Beta) -> Schedule:
    """Make the schedule, step -> weight of the KL, that ``[loss] beta`` describes."""
    match beta:
        case ("linear", steps):
            return linear_warmup(whole(steps))
        case ("linear", first, last, minimum):
            return linear_between(whole(first), whole(last), minimum)
        case ("logistic", steps):
            return logistic_warmup(whole(steps))
        case ("logistic", middle, rate):
            return logistic_growth(whole(middle), rate)
        case value:
            return constant_beta(value)


@dataclass(frozen=True)
class Objective:
    """Turns the output of a model into the loss: warm-up, free bits, balance and importance weighting."""

    loss: LossSection
    image_shape: ImageShape

    @cached_property
    def beta(self) -> Schedule:
        """Step -> weight of the KL."""
        return beta_schedule(self.loss.beta)

    @property
    def scale(self) -> int:
        """Divisor of the loss: C * H * W for nats per dimension, 1 for nats per image."""
        return math.prod(self.image_shape) if self.loss.per_dimension else 1

    @property
    def samples(self) -> int:
        """Draws of each image in a step."""
        return self.loss.mc_samples * self.loss.iw_samples

    def repeated(self, x: Tensor) -> Tensor:
        """Repeat x, (B, ...), once per sample of each image: (samples * B, ...)."""
        return copies(x, self.samples)

    def is_balanced(self, step: int) -> bool:
        """Whether the layers' KL are weighted against one another at ``step``."""
        return self.loss.balance != "none" and step <= whole(self.loss.balance_steps)

    def __call__(self, x: Tensor, out: Output, step: int) -> tuple[Tensor, Terms]:
        """The loss and its terms, for ``repeated`` x at ``step``."""
        return self.weighted(x, out, self.beta(step), self.is_balanced(step))

    def weighted(self, x: Tensor, out: Output, weight: Tensor | float, is_balanced: bool) -> tuple[Tensor, Terms]:
        """The loss and its terms where ``weight``, a scalar, is that of the KL."""
        if self.loss.iw_samples == 1:
            terms = elbo_terms(x, out, self.loss.kl_estimate)
            paid = self.paid(terms.kl)
            if is_balanced:
                units = [latent.z[0].numel() if self.loss.balance == "kl_per_unit" else 1 for latent in out.latents]
                paid = paid * layer_shares(terms.kl.detach().mean(dim=0), units)
            loss = terms.nll.mean() + weight * paid.sum()
        else:
            terms = elbo_terms(x, out, "sampled")
            # As in the Ladder VAE authors' code, warm-up also applies inside the importance weights.
            log_w = -(terms.nll + weight * terms.kl.sum(dim=1)).view(self.loss.mc_samples, self.loss.iw_samples, -1)
            loss = math.log(self.loss.iw_samples) - log_w.logsumexp(dim=1).mean()
        for penalty in out.penalties.values():
            loss = loss + penalty.mean()
        return loss / self.scale, terms

    def paid(self, kl: Tensor) -> Tensor:
        """KL per layer after free bits, (L,)."""
        if self.loss.free_bits == 0:
            return kl.mean(dim=0)
        if self.loss.free_bits_mode == "batch_mean":
            return kl.mean(dim=0).clamp(min=self.loss.free_bits)
        # Clamp before the mean: each image has its own free bits, and ranks stay independent.
        return kl.clamp(min=self.loss.free_bits).mean(dim=0)


def layer_shares(kl: Tensor, units: Sequence[int]) -> Tensor:
    """Weights of the layers' KL, (L,), with mean 1, proportional to each layer's KL per unit.

    Layers with a high KL are penalised more, so that layers with a low KL are not given up early.
    """
    per_unit = (kl / _on_device(tuple(units), kl.device)).clamp(min=0)
    return len(units) * per_unit / per_unit.sum().clamp(min=torch.finfo(kl.dtype).tiny)


@lru_cache(maxsize=64)
def _on_device(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Copy the numbers to the device once: a copy in every step would make the host wait."""
    return torch.tensor(numbers, device=device)
