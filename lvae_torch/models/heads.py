"""p(x | z) at the end of a network: what every family needs to know of a likelihood."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from lvae_torch.distributions import Bernoulli, DiscretizedLogistic, GaussianLikelihood, LogisticMixture
from lvae_torch.errors import CfgError
from lvae_torch.models.contract import Likelihood

ImageShape = tuple[int, int, int]
"""(C, H, W)."""


@dataclass(frozen=True)
class Head:
    """The likelihood's share of the network: how many channels it needs, and what it makes of them."""

    n_params: int
    likelihood: Callable[[Tensor], Likelihood]


def likelihood_head(name: str, channels: int, n_levels: int, n_mixtures: int = 10, reference: bool = False) -> Head:
    """The named likelihood over ``channels`` colours; ``reference`` keeps the original code's approximations."""
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
            return Head(GaussianLikelihood.n_params(channels), GaussianLikelihood.from_params)
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
            )
            return Head(LogisticMixture.n_params(channels, n_mixtures), mixture)
