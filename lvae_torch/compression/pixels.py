"""Pixels under p(x | z), coded as binary decisions: which half of the levels that are left holds the pixel?

A decision needs the distribution function at one level, so 8 bits take 8 of them, not 256 masses; all pixels of a batch
take each decision together. The probabilities of a pixel's decisions multiply up to the mass of its level. Levels whose
mass is next to nothing can still be coded: each decision leaves at least 2^-24 to either side.
Shapes: B batch, C colours, K components, H, W height and width.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
import torch
from torch import Tensor

from lvae_torch.compression.rounding import Rounding
from lvae_torch.compression.stack import Coder, bits
from lvae_torch.distributions import Bernoulli, DiscretizedLogistic, LogisticMixture
from lvae_torch.distributions.categorical import Categorical
from lvae_torch.distributions.coarse import CoarseLikelihood
from lvae_torch.distributions.discretized_logistic import log_bin_mass
from lvae_torch.errors import CfgError
from lvae_torch.models.contract import InOrder, Likelihood
from lvae_torch.models.likelihoods.row_slices import MakeLikelihood, Sliced

MassBelow = Callable[[Tensor], Tensor]  # levels t, int64, -> P(level < t), float64, of the same shape; 0 < t < n_levels
FLOOR = 2.0**-46  # mass added to each half: float64 cannot tell smaller ones from zero anyway


CODED = Sliced | InOrder | Bernoulli | DiscretizedLogistic | LogisticMixture | Categorical


def check_coded(likelihood: Likelihood) -> None:
    """
    Raises:
        CfgError: if there are no masses of all pixel levels to code with.
    """
    if isinstance(likelihood, CODED):
        return
    if isinstance(likelihood, CoarseLikelihood):
        raise CfgError(
            f"p(x|z) is of {likelihood.n_levels} levels, but the images have {likelihood.n_levels_seen}, so they "
            "cannot be compressed without loss. Train one with [model] likelihood_bits = 8."
        )
    raise CfgError(
        f"{type(likelihood).__name__} is no probability of pixel levels, so nothing lossless can be coded with it; "
        "choose a model whose likelihood is bernoulli, discretized_logistic or discretized_logistic_mixture."
    )


def proper(likelihood: Likelihood) -> Likelihood:
    """The likelihood, or where its masses do not add up to one (as published), the one that they approximate."""
    match likelihood:
        case LogisticMixture():
            return _exact(likelihood)
        case DiscretizedLogistic() | Bernoulli():
            return replace(likelihood, reference=False)
        case Sliced():
            return replace(likelihood, make=_Exact(likelihood.make))
    return likelihood


def _exact(mixture: LogisticMixture) -> LogisticMixture:
    return replace(mixture, bins="exact", reference=False)


@dataclass(frozen=True)
class _Exact:
    make: MakeLikelihood

    def __call__(self, params: Tensor) -> LogisticMixture:
        return _exact(self.make(params))


@dataclass(frozen=True)
class PixelCode:
    """Codes levels, int64 (B, C, H, W), with a ``Coder``."""

    n_levels: int
    rounding: Rounding

    def code(self, likelihood: Likelihood, coder: Coder, levels: Tensor | None) -> Tensor:
        """``levels`` noted, or what the coder pops.

        Raises:
            CfgError: if the likelihood is a density or another score: there is no mass to code with.
        """
        match likelihood:
            case Sliced():
                return self._rows(likelihood, coder, levels)
            case InOrder():
                return self._in_order(likelihood, coder, levels)
            case Bernoulli():
                return self._bernoulli(self.rounding(likelihood), coder, levels)
            case DiscretizedLogistic():
                return self._logistic(self.rounding(likelihood), coder, levels)
            case LogisticMixture():
                return self._mixture(self.rounding(likelihood), coder, levels)
            case Categorical():
                return self._categorical(self.rounding(likelihood), coder, levels)
        check_coded(likelihood)
        raise AssertionError(f"{type(likelihood).__name__} is coded, but there is no code for it")

    def _rows(self, likelihood: Sliced, coder: Coder, levels: Tensor | None) -> Tensor:
        turns = likelihood.params.split(likelihood.rows, dim=2)
        known = [None] * len(turns) if levels is None else levels.split(likelihood.rows, dim=2)
        coded = [self.code(likelihood.make(part), coder, rows) for part, rows in zip(turns, known, strict=True)]
        return torch.cat(coded, dim=2)

    def _in_order(self, likelihood: InOrder, coder: Coder, levels: Tensor | None) -> Tensor:
        def choose(row: int, column: int, one: Categorical) -> Tensor:
            known = None if levels is None else levels[..., row : row + 1, column : column + 1]
            return self._categorical(self.rounding(one), coder, known)

        return likelihood.in_order(choose)

    def _bernoulli(self, likelihood: Bernoulli, coder: Coder, levels: Tensor | None) -> Tensor:
        return self._decide(torch.sigmoid(likelihood.logits.double()), coder, levels).long()

    def _logistic(self, likelihood: DiscretizedLogistic, coder: Coder, levels: Tensor | None) -> Tensor:
        location, inverse_scale = likelihood.location.double(), torch.exp(-likelihood.log_scale.double())

        def below(t: Tensor) -> Tensor:
            return torch.sigmoid((t / self.n_levels - location) * inverse_scale)

        return self._search(below, location, coder, levels)

    def _categorical(self, likelihood: Categorical, coder: Coder, levels: Tensor | None) -> Tensor:
        logits = likelihood.logits.double()
        masses = torch.exp(logits - logits.amax(dim=1, keepdim=True))
        table = masses.cumsum(dim=1)  #                                                       (B, K, C, H, W)
        table = table / table[:, -1:]
        return self._search(lambda t: table.gather(1, t[:, None] - 1)[:, 0], table[:, 0], coder, levels)

    def _mixture(self, likelihood: LogisticMixture, coder: Coder, levels: Tensor | None) -> Tensor:
        """Colour by colour: each moves the means of those after it, and tells which components are likely."""
        mixture = _Mixture(likelihood)
        log_weights = likelihood.mix_logits.double()  #                                       (B, K, H, W)
        coded: list[Tensor] = []
        for c in range(likelihood.means.shape[1]):
            colour = mixture.colour(c, coded)
            weights = _normalised(log_weights)
            known = None if levels is None else levels[:, c]
            coded.append(self._search(colour.below(weights), weights[:, 0], coder, known))
            if c + 1 < likelihood.means.shape[1]:  # nobody asks after the last colour
                log_weights = log_weights + colour.log_mass(coded[-1])
        return torch.stack(coded, dim=1)

    def _search(self, below: MassBelow, like: Tensor, coder: Coder, levels: Tensor | None) -> Tensor:
        """Halve the levels that are left until one is; ``like`` has the shape of what is coded."""
        first = torch.zeros(like.shape, dtype=torch.int64, device=like.device)
        lower, upper = torch.zeros_like(like), torch.ones_like(like)  # P(level < first), P(level < first + size)
        size = 1 << (self.n_levels - 1).bit_length()
        while size > 1:
            size //= 2
            middle = first + size
            exists = middle < self.n_levels
            at_middle = torch.where(exists, below(middle.clamp(max=self.n_levels - 1)), 1.0)
            share = (upper - at_middle + FLOOR) / (upper - lower + 2 * FLOOR)
            is_upper = self._decide(
                torch.where(exists, share, 0.0), coder, None if levels is None else levels - first >= size
            )
            first = torch.where(is_upper, middle, first)
            lower, upper = torch.where(is_upper, at_middle, lower), torch.where(is_upper, upper, at_middle)
        return first.clamp(max=self.n_levels - 1)  # of a damaged archive, a level can be one that there is not

    def _decide(self, p: Tensor, coder: Coder, known: Tensor | None) -> Tensor:
        noted = None if known is None else known.to(torch.int32).cpu().numpy().reshape(-1)
        chosen = coder(bits(self.rounding.probability(p).cpu().numpy()), noted)
        return torch.from_numpy(chosen.astype(np.bool_)).to(p.device).view(p.shape)


@dataclass(frozen=True)
class _Mixture:
    """A mixture of logistics with exact bins."""

    likelihood: LogisticMixture

    def colour(self, c: int, before: list[Tensor]) -> "_Colour":
        """Colour c of pixels whose colours ``before`` have these levels, each (B, H, W)."""
        it = self.likelihood
        first = c * (c - 1) // 2
        means = it.means[:, c].double()
        for b, levels in enumerate(before):
            y = it.span * (levels.double() / (it.n_levels - 1)) - 1
            means = means + it.coefficients[:, first + b].double() * y[:, None]
        return _Colour(means, it.log_scales[:, c].double(), it.n_levels, it.span)


@dataclass(frozen=True)
class _Colour:
    """The components' logistics of one colour, cut into bins."""

    means: Tensor  # (B, K, H, W)
    log_scales: Tensor  # (B, K, H, W)
    n_levels: int
    span: float

    def below(self, weights: Tensor) -> MassBelow:
        """P(level < t), (B, H, W), of components with these weights, (B, K, H, W)."""
        inverse_scales = torch.exp(-self.log_scales)
        # sigmoid((edge - mean) / scale) with the edge t * slope + first: one multiplication for each component
        slope = self.span / (self.n_levels - 1)
        components = list(zip(weights.unbind(1), inverse_scales.unbind(1), self.means.unbind(1), strict=True))

        def mass_below(t: Tensor) -> Tensor:
            edge = self._edge(t, slope)
            return reduce(add, (w * torch.sigmoid((edge - mean) * inverse) for w, inverse, mean in components))

        return mass_below

    def log_mass(self, levels: Tensor) -> Tensor:
        """Of ``levels``, (B, H, W), under each component, (B, K, H, W)."""
        slope = self.span / (self.n_levels - 1)
        inverse_scales = torch.exp(-self.log_scales)
        below = (self._edge(levels, slope)[:, None] - self.means) * inverse_scales
        above = (self._edge(levels + 1, slope)[:, None] - self.means) * inverse_scales
        is_first, is_last = (levels == 0)[:, None], (levels == self.n_levels - 1)[:, None]
        return log_bin_mass(below, above, np.log(slope) - self.log_scales, is_first, is_last)

    def _edge(self, t: Tensor, slope: float) -> Tensor:
        """Between levels t - 1 and t."""
        return (t.double() - 0.5) * slope - 1


def _normalised(log_weights: Tensor) -> Tensor:
    """softmax over dim 1, (B, K, H, W), summed in the components' order whatever the shape."""
    weights = torch.exp(log_weights - log_weights.amax(dim=1, keepdim=True))
    return weights / reduce(add, weights.unbind(1))[:, None]
