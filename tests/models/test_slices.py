"""Likelihoods a few rows at a time, and the mixture's further options: the same numbers, and probabilities that fit."""

from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from likelihood_cases import levels, mixture, pixels, repeated
from torch import Tensor
from torch.testing import assert_close

from lvae_torch.distributions import Bernoulli, DiscretizedLogistic, GaussianLikelihood, LogisticMixture, SmoothScale
from lvae_torch.distributions.logistic_mixture import eight_bit_span
from lvae_torch.distributions.noise import image_streams
from lvae_torch.models.likelihoods.row_slices import Sliced, in_slices

N_LEVELS = 32
MAKE = partial(
    LogisticMixture.from_params,
    channels=3,
    n_mixtures=2,
    n_levels=N_LEVELS,
    scale=SmoothScale("std", 0.4),
    min_log_scale=-250.0,
    span=eight_bit_span(N_LEVELS),
)


def params_and_images(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    params = (2 * torch.randn(3, 20, 7, 4, dtype=torch.float64)).to(dtype).requires_grad_()
    return params, torch.randint(0, N_LEVELS, (3, 3, 7, 4)).double() / (N_LEVELS - 1)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 50])
def test_values_and_gradients_are_those_of_the_whole(rows: int) -> None:
    params, x = params_and_images()
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)  # as importance weights give them
    results = []
    for likelihood in (MAKE(params), Sliced(MAKE, params, rows)):
        log_prob = likelihood.log_prob(x)
        results.append((log_prob, *torch.autograd.grad((weights * log_prob).sum(), params)))
        for picture in (likelihood.mean(), likelihood.mode()):
            results[-1] += (picture,)
    for one, other in zip(*results, strict=True):
        assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_sliced_samples_follow_their_seed_and_temperature() -> None:
    sliced = Sliced(MAKE, params_and_images()[0].detach(), rows=2)
    draws = []
    for seed, temperature in ((1, 1.0), (1, 1.0), (1, 0.5), (2, 1.0)):
        torch.manual_seed(seed)
        draws.append(sliced.sample(temperature=temperature))
    assert draws[0].shape == (3, 3, 7, 4)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2]) and not torch.equal(draws[0], draws[3])


@pytest.mark.parametrize("streams", [(), (5, 6, 7)])
@pytest.mark.parametrize("rows", [1, 3, 7])
def test_samples_are_those_of_the_whole(rows: int, streams: tuple[int, ...]) -> None:
    """To the bit, with torch's generator and with a stream for each image: so a batch's size changes no image."""
    params = params_and_images()[0].detach()
    draws = []
    for likelihood in (MAKE(params), Sliced(MAKE, params, rows)):
        torch.manual_seed(1)
        with image_streams(streams, params.device) if streams else nullcontext():
            draws.append(likelihood.sample(temperature=0.9))
    assert torch.equal(*draws)


def test_without_gradients_nothing_is_kept() -> None:
    params, x = params_and_images(torch.bfloat16)
    kept: list[Tensor] = []
    with torch.no_grad(), torch.autograd.graph.saved_tensors_hooks(kept.append, lambda t: t):
        log_prob = Sliced(MAKE, params, rows=2).log_prob(x.float())
    assert kept == [] and log_prob.dtype == torch.float32 and not log_prob.requires_grad


def test_only_large_parameters_are_sliced() -> None:
    params, x = params_and_images()
    assert isinstance(in_slices(MAKE, params), LogisticMixture)
    sliced = in_slices(MAKE, params, large=1000, at_once=500)
    assert isinstance(sliced, Sliced)
    assert sliced.rows == 2  # 240 numbers a row
    assert in_slices(MAKE, params, large=1000, at_once=1).rows == 1  # type: ignore[union-attr]
    assert_close(sliced.log_prob(x), MAKE(params).log_prob(x))
    without_memory = in_slices(MAKE, params.to("meta"), large=1000, at_once=500)
    assert without_memory.rows == 7  # type: ignore[union-attr]


def test_a_turn_sees_its_rows_only_and_leaves_nothing_but_its_gradient() -> None:
    params, x = params_and_images()
    seen: list[tuple[int, ...]] = []

    def make(part: Tensor) -> LogisticMixture:
        seen.append(tuple(part.shape))
        return MAKE(part)

    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda t: t):
        Sliced(make, params, rows=3).log_prob(x)
    assert seen == [(3, 20, 3, 4), (3, 20, 3, 4), (3, 20, 1, 4)]
    assert [tensor.shape for tensor in kept] == [params.shape]


# The mixture's options


@pytest.mark.parametrize("n_levels", [2, 8, 32, 256])
def test_exact_bins_sum_to_one_on_the_axis_of_8_bit_images(n_levels: int) -> None:
    for seed in range(5):
        m = mixture(1, 4, n_levels, seed)
        on_axis = LogisticMixture(
            m.mix_logits, m.means, m.log_scales, m.coefficients, n_levels, span=eight_bit_span(n_levels)
        )
        x = levels(n_levels)
        assert same_options(on_axis, n_levels).log_prob(x).exp().sum().item() == pytest.approx(1, rel=1e-12)


def same_options(m: LogisticMixture, n: int) -> LogisticMixture:
    wide = repeated(m, n)
    fields = {name: getattr(m, name) for name in ("n_levels", "reference", "span", "bins", "density_beta")}
    return LogisticMixture(wide.mix_logits, wide.means, wide.log_scales, wide.coefficients, **fields)


def test_colours_on_that_axis_sum_to_one() -> None:
    m, x = mixture(3, 3, 8), pixels(3, 8)
    m = LogisticMixture(m.mix_logits, m.means, m.log_scales, m.coefficients, 8, span=eight_bit_span(8))
    assert same_options(m, len(x)).log_prob(x).exp().sum().item() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("log_scale", [-3.0, -2.3])
def test_overlapping_bins_of_5_bits_hold_three_percent_too_much(log_scale: float) -> None:
    """Of a logistic in the middle, whose mass lies in the bins that overlap: (1/31) / (8/255) = 1.028."""
    value = torch.full((1, 1, 1, 1, 1), -0.0275, dtype=torch.float64)
    m = LogisticMixture(
        value[:, 0], value, torch.full_like(value, log_scale), value[:, :0], 32, span=eight_bit_span(32),
        bins="overlapping",
    )  # fmt: skip
    total = same_options(m, 32).log_prob(levels(32)).exp().sum().item()
    assert total == pytest.approx(255 / 248, abs=0.003)


def test_eight_bits_have_no_other_axis_and_no_overlap() -> None:
    assert eight_bit_span(256) == 2.0
    m, x = mixture(1, 4), levels(256)
    overlapping = LogisticMixture(m.mix_logits, m.means, m.log_scales, m.coefficients, bins="overlapping")
    assert_close(repeated(m, 256).log_prob(x), same_options(overlapping, 256).log_prob(x), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["std", "logstd"])
@pytest.mark.parametrize("reference", [False, True])
def test_float32_survives_scales_that_underflow(kind: Any, reference: bool) -> None:
    """Where a softplus is zero in float32, its logarithm is not, and 1 / scale stays finite."""
    make = partial(
        LogisticMixture.from_params, channels=3, n_mixtures=10, scale=SmoothScale(kind), min_log_scale=-250.0,
        reference=reference,
    )  # fmt: skip
    torch.manual_seed(0)
    for size in (1.0, 30.0, 300.0, 1e4):
        params = (size * torch.randn(20, 100, 4, 4)).requires_grad_()
        log_prob = make(params).log_prob(torch.randint(256, (20, 3, 4, 4)) / 255)
        log_prob.sum().backward()
        assert log_prob.isfinite().all() and params.grad is not None and params.grad.isfinite().all()


def test_the_temperature_of_samples() -> None:
    """Cold: the mode; and with one noise, a draw's distance from the mean is in proportion."""
    torch.manual_seed(0)
    m = mixture(1, n_mixtures=4)
    assert_close(m.sample(temperature=1e-9), m.mode())
    narrow = LogisticMixture(m.mix_logits[:, :1], 0 * m.means[:, :, :1], -3 + 0 * m.log_scales[:, :, :1],
                             m.coefficients[:, :, :1], reference=True)  # fmt: skip
    noise = torch.rand(1, 1, 1, 1).double(), torch.tensor([0.7]).double().view(1, 1, 1, 1)
    warm, hot = (narrow.sample(noise, temperature) - 0.5 for temperature in (0.5, 1.0))
    assert_close(2 * warm, hot)
    one = torch.full((20000, 1, 1, 1), 0.5)
    gaussian = GaussianLikelihood.from_params(torch.cat([one, 0 * one], dim=1))
    assert gaussian.sample(temperature=0.3).std().item() == pytest.approx(0.3, rel=0.03)
    logistic = DiscretizedLogistic(one, -2 + 0 * one, reference=True)
    u = torch.full_like(one, 0.6)
    assert_close(logistic.sample(u, 0.5) - 0.5, 0.5 * (logistic.sample(u) - 0.5))
    drawn = Bernoulli(one).sample(temperature=0.5).mean().item()
    assert drawn == pytest.approx(torch.sigmoid(2 * one[0]).item(), abs=0.02)
