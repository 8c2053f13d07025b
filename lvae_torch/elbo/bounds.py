"""From nats per image and layer to a bound, or a number for a report. Written once, for every family."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from lvae_torch.distributed.place import float64_device
from lvae_torch.distributions.codes import CertainCodes, perplexity, used_fraction
from lvae_torch.models.contract import Latent, Model, Output, Source
from lvae_torch.models.sources import posterior_sample

KLEstimate = Literal["analytic", "sampled"]


Value = TypeVar("Value", float, np.ndarray)


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


def log_weight(x: Tensor, out: Output) -> Tensor:
    """log w = log p(x, z) - log q(z | x) at the pass's own sample, nats, (B,)."""
    terms = elbo_terms(x, out, "sampled")
    return -terms.nelbo


def _nothing() -> None:
    """Nobody waits for a pass."""


def n_passes(n_images: int, iw_samples: int, chunk: int) -> int:
    """Top-down passes of ``iw_bound`` for a batch of so many images."""
    whole, rest = divmod(n_images, chunk)
    parts = [chunk] * whole + ([rest] if rest else [])
    return sum(-(-iw_samples // (chunk // part)) for part in parts)


def iw_bound(
    model: Model,
    x: Tensor,
    iw_samples: int,
    chunk: int = 100,
    source: Source = posterior_sample,
    after_pass: Callable[[], object] = _nothing,
) -> Tensor:
    """Importance-weighted lower bound on log p(x) (Burda et al. 2016).

    The bottom-up pass runs once; samples are folded into the batch, ``chunk`` images at a time.

    Args:
        x: images, (B, C, H, W), in [0, 1].
        iw_samples: K >= 1; the bound rises towards log p(x) with K, and K = 1 is the ELBO.
        chunk: images times samples in one top-down pass: bounds the memory, changes no result but the noise drawn.
        after_pass: called after each top-down pass; what it raises ends the work.
    Returns:
        Nats per image, (B,), float64. Time grows with K, memory does not.
    Raises:
        ValueError: if ``iw_samples`` or ``chunk`` is below 1.
    """
    if iw_samples < 1 or chunk < 1:
        raise ValueError(f"iw_samples is {iw_samples} and chunk {chunk}; both must be at least 1.")
    features = model.encode(x)
    parts = zip(x.split(chunk), *(f.split(chunk) for f in features), strict=True)
    log_sums = [_log_sum_of_weights(model, part, tuple(f), iw_samples, chunk, source, after_pass) for part, *f in parts]
    return torch.cat(log_sums) - math.log(iw_samples)


def _log_sum_of_weights(
    model: Model,
    x: Tensor,
    features: tuple[Tensor, ...],
    iw_samples: int,
    chunk: int,
    source: Source,
    after_pass: Callable[[], object],
) -> Tensor:
    """log of the sum of K importance weights, (B,), float64, for the features of x, which has at most ``chunk``."""
    at_once = chunk // x.shape[0]
    home = float64_device(x.device)
    total = torch.full((x.shape[0],), -torch.inf, dtype=torch.float64, device=home)
    for first in range(0, iw_samples, at_once):
        k = min(at_once, iw_samples - first)
        out = model.decode(tuple(f.repeat(k, *[1] * (f.dim() - 1)) for f in features), source)
        log_w = log_weight(x.repeat(k, *[1] * (x.dim() - 1)), out).to(home, torch.float64).view(k, -1)  # (k, B)
        total = torch.logaddexp(total, log_w.logsumexp(dim=0))
        after_pass()
    return total


def bits_per_dim(nats: Value, n_dims: int) -> Value:
    """Nats per image, a number or an array of them -> bits per dimension; for reports only."""
    return nats / (n_dims * math.log(2))


def bits_entry(name: str, nats: float, n_dims: int | None) -> dict[str, float]:
    """Bits per dimension under ``name``, for a report; nothing if ``Model.n_dims`` is None."""
    return {} if n_dims is None else {name: bits_per_dim(nats, n_dims)}
