"""From nats per image and layer to a loss, a bound, or a number for a report. Written once, for every family."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from lvae_torch.distributions.codes import CertainCodes, perplexity, used_fraction
from lvae_torch.models.contract import Latent, Model, Output, Shape, Source
from lvae_torch.models.sources import posterior_sample

Schedule = Callable[[int], float]
KLEstimate = Literal["analytic", "sampled"]
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
class Terms:
    """What one batch contributed: each (B,) or (B, L), nats, before any training trick."""

    nll: Tensor  # (B,)    -log p(x|z)
    kl: Tensor  # (B, L)  top layer first
    penalties: Mapping[str, Tensor] = field(default_factory=dict)  # (B,) each
    usage: Mapping[int, Tensor] = field(default_factory=dict)  # (K,): how often each code occurs, by layer of codes

    @property
    def nelbo(self) -> Tensor:
        return self.nll + self.kl.sum(dim=1)

    @classmethod
    def joined(cls, parts: "Sequence[Terms]") -> "Terms":
        """Of a batch that was computed in parts; no gradient flows through them."""
        first = parts[0]
        return cls(
            torch.cat([part.nll.detach() for part in parts]),
            torch.cat([part.kl.detach() for part in parts]),
            {name: torch.cat([part.penalties[name].detach() for part in parts]) for name in first.penalties},
            {i: torch.stack([part.usage[i] for part in parts]).sum(dim=0) for i in first.usage},
        )

    @property
    def extras(self) -> dict[str, Tensor]:
        """Numbers of the batch that only some families have, (), under the names they have in every report."""
        return {**{f"penalty/{name}": term.mean() for name, term in self.penalties.items()}, **code_usage(self.usage)}


def code_usage(usage: Mapping[int, Tensor]) -> dict[str, Tensor]:
    """How varied the codes of each layer are, (), from how often each occurs, (K,)."""
    numbers = (("perplexity", perplexity), ("used_fraction", used_fraction))
    return {f"{name}/{i:02d}": number(counts) for name, number in numbers for i, counts in usage.items()}


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


def elbo_terms(x: Tensor, out: Output, kl_estimate: KLEstimate = "analytic") -> Terms:
    """-log p(x|z) and the KL of each layer, for images x (B, C, H, W)."""
    per_layer: Callable[[Latent], Tensor] = (
        (lambda latent: latent.kl) if kl_estimate == "analytic" else (lambda latent: latent.log_ratio)
    )
    nll = -out.likelihood.log_prob(x)
    kl = torch.stack([per_layer(latent) for latent in out.latents], dim=1) if out.latents else nll.new_zeros(len(x), 0)
    posteriors = [latent.posterior for latent in out.latents]
    usage = {i: q.counts() for i, q in enumerate(posteriors) if isinstance(q, CertainCodes)}
    return Terms(nll, kl, out.penalties, usage)


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


def log_weight(x: Tensor, out: Output) -> Tensor:
    """log w = log p(x, z) - log q(z | x) at the pass's own sample, nats, (B,)."""
    terms = elbo_terms(x, out, "sampled")
    return -terms.nelbo


def iw_bound(model: Model, x: Tensor, iw_samples: int, chunk: int = 100, source: Source = posterior_sample) -> Tensor:
    """Importance-weighted lower bound on log p(x) (Burda et al. 2016).

    The bottom-up pass runs once; samples are folded into the batch, ``chunk`` images at a time.

    Args:
        x: images, (B, C, H, W), in [0, 1].
        iw_samples: K >= 1; the bound rises towards log p(x) with K, and K = 1 is the ELBO.
        chunk: images times samples in one top-down pass: bounds the memory, changes no result but the noise drawn.
    Returns:
        Nats per image, (B,), float64. Time grows with K, memory does not.
    Raises:
        ValueError: if ``iw_samples`` or ``chunk`` is below 1.
    """
    if iw_samples < 1 or chunk < 1:
        raise ValueError(f"iw_samples is {iw_samples} and chunk {chunk}; both must be at least 1.")
    features = model.encode(x)
    parts = zip(x.split(chunk), *(f.split(chunk) for f in features), strict=True)
    log_sums = [_log_sum_of_weights(model, part, tuple(f), iw_samples, chunk, source) for part, *f in parts]
    return torch.cat(log_sums) - math.log(iw_samples)


def _log_sum_of_weights(
    model: Model, x: Tensor, features: tuple[Tensor, ...], iw_samples: int, chunk: int, source: Source
) -> Tensor:
    """log of the sum of K importance weights, (B,), float64, for the features of x, which has at most ``chunk``."""
    at_once = chunk // x.shape[0]
    total = x.new_full((x.shape[0],), -torch.inf, dtype=torch.float64)
    for first in range(0, iw_samples, at_once):
        k = min(at_once, iw_samples - first)
        out = model.decode(tuple(f.repeat(k, *[1] * (f.dim() - 1)) for f in features), source)
        log_w = log_weight(x.repeat(k, *[1] * (x.dim() - 1)), out).double().view(k, -1)  # (k, B)
        total = torch.logaddexp(total, log_w.logsumexp(dim=0))
    return total


def bits_per_dim(nats: float, n_dims: int) -> float:
    """Nats per image -> bits per dimension; for reports only."""
    return nats / (n_dims * math.log(2))


def dims_of_bits(model: Model) -> int | None:
    """C * H * W, to report bits per dimension with; None where the model's likelihood has no such."""
    return math.prod(model.image_shape) if model.in_bits else None


def bits_entry(name: str, nats: float, n_dims: int | None) -> dict[str, float]:
    """Bits per dimension under ``name``, for a report; nothing if ``dims_of_bits`` was None."""
    return {} if n_dims is None else {name: bits_per_dim(nats, n_dims)}


class UnitStatistics:
    """What each latent unit does over a data set: its mean KL, and how much its posterior mean varies."""

    def __init__(self, shapes: Sequence[Shape], device: torch.device) -> None:
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        # Per layer: sums of the posterior mean, of its square, and of the KL.
        self.sums = [torch.zeros(3, *shape, dtype=torch.float64, device=device) for shape in shapes]

    def update(self, latents: tuple[Latent, ...]) -> None:
        """Add one encoded batch."""
        for sums, latent in zip(self.sums, latents, strict=True):
            mean = latent.encoded.mean.double()
            kl = latent.kl_of_units.sum(dim=0, dtype=torch.float64)
            sums += torch.stack([mean.sum(dim=0), (mean**2).sum(dim=0), kl])
        self.count += latents[0].z.shape[0] if latents else 0

    def result(self, sum_over_ranks: Callable[[Tensor], Tensor]) -> "Units":
        """Means over the batches of all ranks."""
        count = sum_over_ranks(self.count)
        moments = [sum_over_ranks(sums) / count for sums in self.sums]
        return Units(tuple(m[1] - m[0] ** 2 for m in moments), tuple(m[2] for m in moments))


@dataclass(frozen=True)
class Units:
    """Per layer, top first, of the layer's shape each."""

    variance: tuple[Tensor, ...]
    """Of the posterior mean over the data."""
    kl: tuple[Tensor, ...]
    """Mean KL(q||p), nats."""

    def active(self, threshold: float = 0.01) -> tuple[int, ...]:
        """Units whose posterior mean varies by more than ``threshold`` (Burda et al. 2016), by layer."""
        return tuple(int((variance > threshold).sum()) for variance in self.variance)

    def informative(self, threshold: float = 0.01) -> tuple[int, ...]:
        """Units with more than ``threshold`` nats of KL (the Ladder VAE paper's count), by layer."""
        return tuple(int((kl > threshold).sum()) for kl in self.kl)
