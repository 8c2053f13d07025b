"""The ELBO, the importance-weighted bound and bits per dimension, for every family.

The importance-weighted bound is from Burda et al. 2016, https://arxiv.org/abs/1509.00519.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from lvae_torch.data.labelled import Labelled
from lvae_torch.distributed.graph import Graphed, Inputs, Outputs
from lvae_torch.distributed.place import float64_device, in_float64
from lvae_torch.distributions.codes import CertainCodes, perplexity, used_fraction
from lvae_torch.distributions.gaussian import DiagonalGaussian, kl_of_all
from lvae_torch.models.contract import Latent, Model, Output, Source, of_classes, per_image
from lvae_torch.models.layout import copies
from lvae_torch.models.sources import posterior_sample

KLEstimate = Literal["analytic", "sampled"]
WeightedPass = Callable[[Inputs, int], Outputs]
"""(x, labels, features...) and k -> ``log_sum`` of k importance weights of each image."""

Value = TypeVar("Value", float, np.ndarray)


@dataclass(frozen=True)
class Terms:
    """The terms of the ELBO for one batch, in nats, before free bits, warm-up or balance."""

    nll: Tensor  # (B,)    -log p(x|z)
    kl: Tensor  # (B, L)  top layer first
    penalties: Mapping[str, Tensor] = field(default_factory=dict)  # (B,) each
    usage: Mapping[int, Tensor] = field(default_factory=dict)  # layer -> how often each code occurs, (K,)

    @property
    def nelbo(self) -> Tensor:
        return self.nll + self.kl.sum(dim=1)

    def detached(self) -> "Terms":
        """The same without gradients."""
        penalties = {name: penalty.detach() for name, penalty in self.penalties.items()}
        return Terms(self.nll.detach(), self.kl.detach(), penalties, self.usage)

    @classmethod
    def joined(cls, parts: "Sequence[Terms]") -> "Terms":
        """The terms of a batch that was computed in parts."""
        first = parts[0]
        return cls(
            torch.cat([part.nll for part in parts]),
            torch.cat([part.kl for part in parts]),
            {name: torch.cat([part.penalties[name] for part in parts]) for name in first.penalties},
            {i: torch.stack([part.usage[i] for part in parts]).sum(dim=0) for i in first.usage},
        )

    @property
    def extras(self) -> dict[str, Tensor]:
        """Scalars of the batch that only some families have, under their names in reports."""
        return {**{f"penalty/{name}": term.mean() for name, term in self.penalties.items()}, **code_usage(self.usage)}


def code_usage(usage: Mapping[int, Tensor]) -> dict[str, Tensor]:
    """Perplexity and used fraction of the codes of each layer, scalars, from how often each code occurs, (K,)."""
    numbers = (("perplexity", perplexity), ("used_fraction", used_fraction))
    return {f"{name}/{i:02d}": number(counts) for name, number in numbers for i, counts in usage.items()}


def elbo_terms(x: Tensor, out: Output, kl_estimate: KLEstimate = "analytic") -> Terms:
    """-log p(x|z) and the KL of each layer, for images x (B, C, H, W)."""
    nll = -out.likelihood.log_prob(x)
    of_layers = (
        kl_of_layers(out.latents, at_once=x.is_cuda)
        if kl_estimate == "analytic"
        else [latent.log_ratio for latent in out.latents]
    )
    kl = torch.stack(of_layers, dim=1) if of_layers else nll.new_zeros(len(x), 0)
    posteriors = [latent.posterior for latent in out.latents]
    usage = {i: q.counts() for i, q in enumerate(posteriors) if isinstance(q, CertainCodes)}
    return Terms(nll, kl, out.penalties, usage)


def kl_of_layers(latents: Sequence[Latent], at_once: bool) -> list[Tensor]:
    """KL(q || p) of each layer, nats, (B,).

    Args:
        at_once: whether to compute those of all Gaussians together: few operations, for a card; on a CPU a layer's maps
            stay in its cache if they are alone.
    """
    pairs = [(latent.encoded, latent.prior) for latent in latents] if at_once else []
    # Not by isinstance: a posterior with a KL of its own, such as one that was drawn, is a Gaussian too.
    gaussian = {i: (q, p) for i, (q, p) in enumerate(pairs) if type(q) is type(p) is DiagonalGaussian}
    units = dict(zip(gaussian, kl_of_all(list(gaussian.values())), strict=True)) if gaussian else {}
    return [per_image(units[i]) if i in units else latent.kl for i, latent in enumerate(latents)]


def log_weight(x: Tensor, out: Output) -> Tensor:
    """log w = log p(x, z) - log q(z | x) at the sample of the pass, nats, (B,)."""
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
    labels: Tensor | None = None,
    weighted: WeightedPass | None = None,
) -> Tensor:
    """Importance-weighted lower bound on log p(x) (Burda et al. 2016).

    The bottom-up pass runs once; samples are folded into the batch, ``chunk`` images at a time.

    Args:
        x: images, (B, C, H, W), in [0, 1].
        iw_samples: K >= 1; the bound rises towards log p(x) with K, and K = 1 is the ELBO.
        chunk: images times samples in one top-down pass: bounds the memory, changes no result but the noise drawn.
        after_pass: called after each top-down pass; what it raises ends the work.
        labels: class of each image, (B,), of a class-conditional model.
        weighted: what does the top-down passes, with a source of its own; by default the model as it is.
    Returns:
        Nats per image, (B,), float64. Time grows with K, but memory does not.
    Raises:
        ValueError: if ``iw_samples`` or ``chunk`` is below 1.
    """
    if iw_samples < 1 or chunk < 1:
        raise ValueError(f"iw_samples is {iw_samples} and chunk {chunk}; both must be at least 1.")
    features, weighted = model.encode(x), weighted or weighted_pass(model, source)
    parts = zip(Labelled(x, labels).split(chunk), *(f.split(chunk) for f in features), strict=True)
    log_sums = [
        _log_sum_of_weights(weighted, (part.images, part.labels, *f), iw_samples, chunk, after_pass)
        for part, *f in parts
    ]
    return torch.cat(log_sums) - math.log(iw_samples)


def weighted_pass(model: Model, source: Source = posterior_sample, is_graphed: bool = False) -> WeightedPass:
    """What does the top-down passes of ``iw_bound``; ``is_graphed``, on a card, replays them as one graph."""
    weighted = partial(_weighted, model, source)
    return Graphed(weighted, "a pass of the importance-weighted bound") if is_graphed else weighted


def _log_sum_of_weights(
    weighted: WeightedPass, inputs: Inputs, iw_samples: int, chunk: int, after_pass: Callable[[], object]
) -> Tensor:
    """Log of the sum of K importance weights, (B,), float64, of at most ``chunk`` images: their x, labels, features."""
    x = inputs[0]
    assert x is not None
    at_once, home = chunk // x.shape[0], float64_device(x.device)
    total = torch.full((x.shape[0],), -torch.inf, dtype=torch.float64, device=home)
    for first in range(0, iw_samples, at_once):
        total = torch.logaddexp(total, weighted(inputs, min(at_once, iw_samples - first))["log_sum"])
        after_pass()
    return total


def _weighted(model: Model, source: Source, inputs: Inputs, k: int) -> Outputs:
    """A top-down pass with k samples of each image: ``log_sum`` of their importance weights, (B,), float64."""
    x, labels, *features = (None if t is None else copies(t, k) for t in inputs)
    assert x is not None
    out = model.decode(tuple(f for f in features if f is not None), of_classes(source, labels))
    log_w = in_float64(log_weight(x, out)).view(k, -1)  # (k, B)
    return {"log_sum": log_w.logsumexp(dim=0)}


def bits_per_dim(nats: Value, n_dims: int) -> Value:
    """Convert nats per image (a number or an array) to bits per dimension; for reports only."""
    return nats / (n_dims * math.log(2))


def bits_entry(name: str, nats: float, n_dims: int | None) -> dict[str, float]:
    """A report's entry ``name`` in bits per dimension; empty if ``Model.n_dims`` is None."""
    return {} if n_dims is None else {name: bits_per_dim(nats, n_dims)}


def standard_error(values: np.ndarray) -> float:
    """Standard error of the mean of ``values``, (n,); NaN for one alone, which tells no spread."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else math.nan
