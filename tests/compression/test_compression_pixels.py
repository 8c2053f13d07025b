"""What pixels cost, against the masses that the likelihoods themselves give; and extreme parameters."""

from typing import Any

import numpy as np
import pytest
import torch
from compression_cases import as_bits, filled_stack
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lvae_torch.compression.pixels import PixelCode, proper
from lvae_torch.compression.rounding import Rounding
from lvae_torch.compression.stack import Record, Stack, Symbols
from lvae_torch.distributions import Bernoulli, DiscretizedLogistic, GaussianLikelihood, LogisticMixture
from lvae_torch.distributions.categorical import Categorical
from lvae_torch.distributions.logistic_mixture import eight_bit_span
from lvae_torch.errors import CfgError
from lvae_torch.models.likelihoods.row_slices import in_slices

B, H, W = 3, 2, 4


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(B, *size, H, W, generator=torch.Generator().manual_seed(seed))


def mixture(channels: int, n_levels: int, **options: Any) -> LogisticMixture:
    params = normal(LogisticMixture.n_params(channels, 4))
    return LogisticMixture.from_params(params, channels, 4, n_levels, **options)


LIKELIHOODS = {
    "bernoulli": (Bernoulli(3 * normal(1)), 1, 2),
    "logistic of 256": (DiscretizedLogistic.from_params(normal(6), 256), 3, 256),
    "logistic of 3": (DiscretizedLogistic.from_params(normal(2), 3), 1, 3),
    "mixture of 256": (mixture(3, 256), 3, 256),
    "mixture of grey": (mixture(1, 256), 1, 256),
    "mixture of two colours": (mixture(2, 10), 2, 10),
    "mixture of 5 bits": (mixture(3, 32, span=eight_bit_span(32)), 3, 32),
    "mixture of 5 bits as published": (mixture(3, 32, span=eight_bit_span(32), bins="overlapping"), 3, 32),
    "mixture by density": (mixture(3, 256, reference=True), 3, 256),
    "categorical": (Categorical(normal(7, 1)), 1, 7),
    "categorical of colours": (Categorical(normal(5, 2)), 2, 5),
}


def some_levels(channels: int, n_levels: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, n_levels, (B, channels, H, W), generator=generator)


def cost(symbols: Symbols, known: np.ndarray) -> float:
    """Of bits, from their probabilities."""
    (p,) = symbols.params
    return float(-np.log2(np.where(known == 1, p, 1 - p).clip(2.0**-24)).sum())


@pytest.mark.parametrize("is_robust", [False, True])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_pixels_cost_what_the_likelihood_says(name: str, is_robust: bool) -> None:
    likelihood, _, n_levels = LIKELIHOODS[name]
    torch.manual_seed(0)
    drawn = proper(likelihood).sample() * (n_levels - 1)  # no decision between them costs more than 24 bits
    levels = drawn.round().long()
    code, noted = PixelCode(n_levels, Rounding(is_robust)), []

    def coder(symbols: Symbols, known: np.ndarray | None) -> np.ndarray:
        assert known is not None
        noted.append(cost(symbols, known))
        return known

    assert torch.equal(code.code(likelihood, coder, levels), levels)
    log_prob = proper(likelihood).log_prob(levels / (n_levels - 1)).sum()
    assert sum(noted) == pytest.approx(-as_bits(float(log_prob)), rel=2e-4)


@pytest.mark.parametrize("is_robust", [False, True])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_pixels_come_back(name: str, is_robust: bool) -> None:
    likelihood, channels, n_levels = LIKELIHOODS[name]
    code = PixelCode(n_levels, Rounding(is_robust))
    stack = filled_stack(50)
    for seed in range(5):
        levels = some_levels(channels, n_levels, seed)
        assert torch.equal(pushed_and_popped(code, likelihood, levels, stack), levels)


def pushed_and_popped(code: PixelCode, likelihood: Any, levels: Tensor, stack: Stack) -> Tensor:
    record = Record()
    code.code(likelihood, record, levels)
    record.push(stack)
    return code.code(likelihood, stack.pop, None)


EXTREME = st.sampled_from([-1e30, -1e4, -80.0, -7.0, -1e-3, 0.0, 1e-3, 7.0, 80.0, 1e4, 1e30])


@settings(deadline=None, max_examples=100)
@given(st.lists(EXTREME, min_size=12, max_size=12), st.sampled_from([2, 3, 32, 256]), st.booleans())
def test_extreme_parameters_never_fail(numbers: list[float], n_levels: int, is_robust: bool) -> None:
    """Scales at their bounds, certain pixels, masses near zero: any level can be coded, also the least likely."""
    code = PixelCode(n_levels, Rounding(is_robust))
    values = torch.tensor(numbers, dtype=torch.float64)
    location, log_scale = values[:4].view(1, 1, 2, 2), values[4:8].view(1, 1, 2, 2).clamp(min=-62, max=80)
    likelihoods = [
        DiscretizedLogistic(location, log_scale.clamp(min=-7), n_levels),
        LogisticMixture(
            values[8:].view(1, 1, 2, 2).repeat(1, 2, 1, 1),
            location.unsqueeze(2).repeat(1, 1, 2, 1, 1),
            torch.stack([log_scale, -log_scale.clamp(min=-60, max=60)], dim=2),
            location.new_zeros(1, 0, 2, 2, 2),
            n_levels,
        ),
        Categorical(values[:n_levels].view(1, -1, 1, 1, 1).expand(1, -1, 1, 2, 2)) if n_levels <= 12 else None,
        Bernoulli(location) if n_levels == 2 else None,
    ]
    stack = filled_stack(50)
    for levels in (torch.zeros(1, 1, 2, 2).long(), torch.full((1, 1, 2, 2), n_levels - 1)):
        for likelihood in filter(None, likelihoods):
            assert torch.equal(pushed_and_popped(code, likelihood, levels, stack), levels)


def test_slices_are_coded_like_the_whole() -> None:
    params = normal(LogisticMixture.n_params(3, 4))
    whole = LogisticMixture.from_params(params, 3, 4)
    sliced = in_slices(lambda part: LogisticMixture.from_params(part, 3, 4), params, large=1, at_once=200)
    assert sliced.rows == 1  # type: ignore[attr-defined]
    levels, code, stack = some_levels(3, 256), PixelCode(256, Rounding(False)), filled_stack(50)
    before = stack.n_bits
    record = Record()
    code.code(whole, record, levels)
    record.push(stack)
    whole_bits = stack.n_bits - before
    assert torch.equal(pushed_and_popped(code, sliced, levels, stack), levels)
    record = Record()
    code.code(sliced, record, levels)
    before = stack.n_bits
    record.push(stack)
    assert abs(stack.n_bits - before - whole_bits) <= 1


def test_a_density_is_refused_by_name() -> None:
    likelihood = GaussianLikelihood.from_params(normal(2))
    with pytest.raises(CfgError, match="GaussianLikelihood is no probability"):
        PixelCode(256, Rounding(False)).code(likelihood, filled_stack(9).pop, None)
