"""p(x | z) at the end of a network, and the table of likelihoods that all families choose from."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator
from torch import Tensor

from lvae_torch.cfg.section import Positive, one_of
from lvae_torch.data.shapes import ImageShape
from lvae_torch.distributions import Bernoulli, DiscretizedLogistic, GaussianLikelihood, LogisticMixture, SquaredError
from lvae_torch.errors import CfgError
from lvae_torch.models.contract import Likelihood
from lvae_torch.models.likelihoods.gaussian_scales import FixedScale, LearnedScale, OptimalScale
from lvae_torch.models.likelihoods.row_slices import in_slices
from lvae_torch.models.section import ModelSection

MIXTURE = "discretized_logistic_mixture"
OVERLAPPING_BINS = "bins overlap below 8 bits, as published: about 0.04 bits/dim too good with 5"
"""The remark on a mixture whose masses add up to more than one."""
GaussianStd = Positive | Literal["per_output", "learned", "optimal"]
"""How a Gaussian likelihood gets its standard deviation."""


@dataclass(frozen=True)
class Head:
    """The last part of a network: the number of output channels, and the likelihood made from them."""

    n_params: int
    likelihood: Callable[[Tensor], Likelihood]
    """A likelihood with learned parameters is a module, and becomes part of the model that holds it."""
    in_bits: bool = True
    """Whether it is a probability of pixel levels; densities and other scores have no bits per dimension."""


@dataclass(frozen=True)
class Options:
    """Options that a section gives its likelihood beside the name. Each likelihood reads those it needs."""

    n_mixtures: int = 10
    reference: bool = False
    """Keep the original code's approximations."""
    std: GaussianStd = "per_output"
    """Standard deviation of the Gaussian: a number, one network output per value, or one for all values."""
    mixture: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of ``LogisticMixture.from_params``."""


@dataclass(frozen=True)
class Kind:
    """One likelihood: the images it is for, and the function that makes its head."""

    make: Callable[[int, int, Options], Head]
    """(colours, pixel levels, options) -> head."""
    takes: Literal["binary", "levels", "any values"] = "levels"
    is_density: bool = False
    """Whether it scores continuous values, such as dequantized pixels."""


def _bernoulli(channels: int, n_levels: int, options: Options) -> Head:
    return Head(Bernoulli.n_params(channels), partial(Bernoulli.from_params, reference=options.reference))


def _gaussian(channels: int, n_levels: int, options: Options) -> Head:
    match options.std:
        case "per_output":
            return Head(GaussianLikelihood.n_params(channels), GaussianLikelihood.from_params, in_bits=False)
        case "learned":
            return Head(channels, LearnedScale(), in_bits=False)
        case "optimal":
            return Head(channels, OptimalScale(), in_bits=False)
        case number:
            return Head(channels, FixedScale(number), in_bits=False)


def _squared_error(channels: int, n_levels: int, options: Options) -> Head:
    return Head(SquaredError.n_params(channels), SquaredError.from_params, in_bits=False)


def _discretized_logistic(channels: int, n_levels: int, options: Options) -> Head:
    make = partial(DiscretizedLogistic.from_params, n_levels=n_levels, reference=options.reference)
    return Head(DiscretizedLogistic.n_params(channels), make)


def _logistic_mixture(channels: int, n_levels: int, options: Options) -> Head:
    make = partial(
        LogisticMixture.from_params,
        channels=channels,
        n_mixtures=options.n_mixtures,
        n_levels=n_levels,
        reference=options.reference,
        **options.mixture,
    )
    return Head(LogisticMixture.n_params(channels, options.n_mixtures), partial(in_slices, make))


LIKELIHOODS: dict[str, Kind] = {
    "bernoulli": Kind(_bernoulli, takes="binary"),
    "gaussian": Kind(_gaussian, takes="any values", is_density=True),
    "recon_sse": Kind(_squared_error, is_density=True),
    "discretized_logistic": Kind(_discretized_logistic),
    MIXTURE: Kind(_logistic_mixture),
}
LikelihoodName = Annotated[str, AfterValidator(one_of(LIKELIHOODS))]


def likelihood_head(name: str, channels: int, n_levels: int, options: Options | None = None) -> Head:
    """The head of the named likelihood for ``channels`` colours with ``n_levels`` pixel levels (0: continuous).

    Raises:
        CfgError: if the likelihood is unknown or does not fit the pixels.
    """
    if name not in LIKELIHOODS:
        raise CfgError(f"[model] likelihood = {name!r} is none of {', '.join(LIKELIHOODS)}.")
    if problems := list(misfits(name, n_levels)):
        raise CfgError(f"[model] {problems[0]}.")
    return LIKELIHOODS[name].make(channels, n_levels, options or Options())


def misfits(name: str, n_levels: int) -> Iterator[str]:
    """Yield the reason why the likelihood cannot score pixels of ``n_levels`` levels (0: continuous)."""
    takes = LIKELIHOODS[name].takes
    if takes != "any values" and n_levels < 2:
        yield f"likelihood = {name} needs pixels in levels, but this data has none; use gaussian"
    elif takes == "binary" and n_levels != 2:
        yield (
            f"likelihood = {name} needs binary images, but these have {n_levels} levels; set [data] binarize, or "
            "choose discretized_logistic_mixture"
        )


def misplaced_std(std: GaussianStd, likelihood: str) -> Iterator[str]:
    """Yield a problem if ``std`` is set but the likelihood is not Gaussian."""
    if std != "per_output" and likelihood != "gaussian":
        yield f"std = {std!r} is for likelihood = gaussian, not {likelihood}; leave it out"


class LikelihoodSection(ModelSection):
    """[model]: the section of a family whose network ends in one of ``LIKELIHOODS``."""

    likelihood: LikelihoodName
    """p(x | z): bernoulli for binary data, the discretized ones for pixels; gaussian (a density) and recon_sse (a sum
    of squared errors on [-1, 1]) have no bits per dimension."""

    @property
    def is_density(self) -> bool:
        return LIKELIHOODS[self.likelihood].is_density

    def misfits(self, image_shape: ImageShape, n_levels: int) -> Iterator[str]:
        yield from misfits(self.likelihood, n_levels)
