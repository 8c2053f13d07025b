"""[loss]: the scalar to minimise, and the schedules of beta."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from lvae_torch.elbo.bounds import KLEstimate, Terms, elbo_terms
from lvae_torch.models.contract import Output

Schedule = Callable[[int], float]
Balance = Literal["none", "kl_per_unit", "kl"]


def constant_beta(value: float) -> Schedule:
    return lambda step: value


def linear_warmup(steps: int, start: float = 0.0) -> Schedule:
    """β from ``start`` at step 0 to 1 at step ``steps``, then 1."""
    return lambda step: min(1.0, start + (1.0 - start) * step / steps)


def logistic_warmup(steps: int, sharpness: float = 10.0) -> Schedule:
    """β along a logistic curve, rescaled to be exactly 0 at step 0 and 1 from step ``steps`` on."""

    def sigmoid(t: float) -> float:
        return 1.0 / (1.0 + math.exp(-sharpness * (t - 0.5)))

    low, high = sigmoid(0.0), sigmoid(1.0)
    return lambda step: (sigmoid(min(1.0, step / steps)) - low) / (high - low)


def linear_between(first: int, last: int, minimum: float = 0.0) -> Schedule:
    """β from 0 at step ``first`` to 1 at step ``last``, never below ``minimum``."""
    return lambda step: min(1.0, max(minimum, (step - first) / (last - first)))


def logistic_growth(middle: float, rate: float) -> Schedule:
    """β = sigmoid(rate * (step - middle)), which is 1/2 at step ``middle``."""
    return lambda step: 0.5 * (1.0 + math.tanh(0.5 * rate * (step - middle)))  # tanh does not overflow


@dataclass(frozen=True)
class Objective:
    """Output -> the scalar to minimise. All training tricks live here."""

    beta: Schedule
    """Step -> weight of the KL (warm-up)."""
    free_bits: float = 0.0
    """Nats of KL per layer that cost nothing (Kingma et al. 2016)."""
    free_bits_mode: Literal["per_example", "batch_mean"] = "per_example"
    kl_estimate: KLEstimate = "analytic"
    mc_samples: int = 1
    """Estimates averaged over, each of a sample or of an importance-weighted bound of its own."""
    iw_samples: int = 1
    """Samples in each importance-weighted bound (Burda et al. 2016); 1 is the ELBO."""
    balance: Balance = "none"
    """How the KL is shared out over the layers at first (Vahdat & Kautz 2020, where the shares are called gamma)."""
    balance_steps: int = 0
    """The last step that does so."""
    n_dims: int = 1
    """Divides the loss: 1 for nats per image, C * H * W for nats per dimension."""

    def repeated(self, x: Tensor) -> Tensor:
        """x, (B, ...), as often as a step has samples of each image: (mc_samples * iw_samples * B, ...)."""
        times = self.mc_samples * self.iw_samples
        return x if times == 1 else x.repeat(times, *[1] * (x.dim() - 1))

    def __call__(self, x: Tensor, out: Output, step: int) -> tuple[Tensor, Terms]:
        """The loss, and the terms it was made of, for ``repeated`` x at ``step``."""
        if self.iw_samples == 1:
            terms = elbo_terms(x, out, self.kl_estimate)
            paid = self.paid(terms.kl)
            if self.balance != "none" and step <= self.balance_steps:
                units = [latent.z[0].numel() if self.balance == "kl_per_unit" else 1 for latent in out.latents]
                paid = paid * layer_shares(terms.kl.detach().mean(dim=0), units)
            loss = terms.nll.mean() + self.beta(step) * paid.sum()
        else:
            terms = elbo_terms(x, out, "sampled")
            # As the Ladder VAE's authors do, warm-up weighs the latents inside the importance weights too.
            log_w = -(terms.nll + self.beta(step) * terms.kl.sum(dim=1)).view(self.mc_samples, self.iw_samples, -1)
            loss = math.log(self.iw_samples) - log_w.logsumexp(dim=1).mean()
        for penalty in out.penalties.values():
            loss = loss + penalty.mean()
        return loss / self.n_dims, terms

    def paid(self, kl: Tensor) -> Tensor:
        """KL per layer after free bits, (L,)."""
        if self.free_bits == 0:
            return kl.mean(dim=0)
        if self.free_bits_mode == "batch_mean":
            return kl.mean(dim=0).clamp(min=self.free_bits)
        # Before the batch mean: each image has its own free bits, and ranks stay independent.
        return kl.clamp(min=self.free_bits).mean(dim=0)


def layer_shares(kl: Tensor, units: Sequence[int]) -> Tensor:
    """Weights of the layers' KL, mean 1, in proportion to the KL that one of a layer's ``units`` has, (L,).

    Expensive layers pay more, so none is given up before it has learned something.
    """
    per_unit = (kl / _on_device(tuple(units), kl.device)).clamp(min=0)
    return len(units) * per_unit / per_unit.sum().clamp(min=torch.finfo(kl.dtype).tiny)


@lru_cache(maxsize=64)
def _on_device(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Copied once: a copy in every step would wait for the device."""
    return torch.tensor(numbers, device=device)
