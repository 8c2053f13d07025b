"""p(x | z) at the end of a network: what every family needs to know of a likelihood."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor

from lvae_torch.cfg.section import Positive
from lvae_torch.distributions import (
    Bernoulli,
    DiscretizedLogistic,
    GaussianLikelihood,
    LogisticMixture,
    SquaredError,
)
from lvae_torch.errors import CfgError
from lvae_torch.models.contract import Likelihood
from lvae_torch.models.likelihoods.gaussian_scales import FixedScale, LearnedScale, OptimalScale
from lvae_torch.models.likelihoods.row_slices import in_slices

ImageShape = tuple[int, int, int]
"""(C, H, W)."""
GaussianStd = Positive | Literal["per_output", "learned", "optimal"]
"""Where a Gaussian likelihood has its standard deviation from."""


@dataclass(frozen=True)
class Head:
    """The likelihood's share of the network: how many channels it needs, and what it makes of them."""

    n_params: int
    likelihood: Callable[[Tensor], Likelihood]
    """Where it has weights of its own it is a module, and becomes part of the model that keeps it."""
    in_bits: bool = True
    """Whether it is a probability of pixel levels; of densities and other scores there are no bits per dimension."""


def likelihood_head(
    name: str,
    channels: int,
    n_levels: int,
    n_mixtures: int = 10,
    reference: bool = False,
    std: GaussianStd = "per_output",
    **mixture_options: Any,
) -> Head:
    """The named likelihood over ``channels`` colours; ``reference`` keeps the original code's approximations.

    ``std`` is that of the Gaussian: a number, an output of the network for each value, or one for all.
    ``mixture_options`` are further arguments of ``LogisticMixture.from_params``.
    """
    if n_levels < 2 and name != "gaussian":
        raise CfgError(f"[model] likelihood = {name} needs pixels in levels, but this data has none; use gaussian.")
    match name:
        case "bernoulli":
            if n_levels != 2:
                raise CfgError(
                    f"[model] likelihood = bernoulli needs binary images, but these have {n_levels} levels; "
                    "set [data] binarize, or choose discretized_logistic_mixture."
                )
            return Head(Bernoulli.n_params(channels), partial(Bernoulli.from_params, reference=reference))
        case "gaussian":
            return gaussian_head(channels, std)
        case "recon_sse":
            return Head(SquaredError.n_params(channels), SquaredError.from_params, in_bits=False)
        case "discretized_logistic":
            make = partial(DiscretizedLogistic.from_params, n_levels=n_levels, reference=reference)
            return Head(DiscretizedLogistic.n_params(channels), make)
        case _:
            mixture = partial(
                LogisticMixture.from_params,
                channels=channels,
                n_mixtures=n_mixtures,
                n_levels=n_levels,
                reference=reference,
                **mixture_options,
            )
            return Head(LogisticMixture.n_params(channels, n_mixtures), partial(in_slices, mixture))


def misplaced_std(std: GaussianStd, likelihood: str) -> Iterator[str]:
    """What is wrong with a ``std`` that no Gaussian asked for."""
    if std != "per_output" and likelihood != "gaussian":
        yield f"std = {std!r} is for likelihood = gaussian, not {likelihood}; leave it out"


def gaussian_head(channels: int, std: GaussianStd) -> Head:
    """A Gaussian over ``channels`` colours."""
    match std:
        case "per_output":
            return Head(GaussianLikelihood.n_params(channels), GaussianLikelihood.from_params, in_bits=False)
        case "learned":
            return Head(channels, LearnedScale(), in_bits=False)
        case "optimal":
            return Head(channels, OptimalScale(), in_bits=False)
        case number:
            return Head(channels, FixedScale(number), in_bits=False)
