"""Log probabilities against torch.distributions, and against a thousand digits where those have none left."""

import math
from decimal import Decimal, localcontext

import pytest
import torch
from likelihood_cases import levels, logistics, mixture, some_levels
from torch import Tensor
from torch.distributions import AffineTransform, SigmoidTransform, TransformedDistribution, Uniform
from torch.nn.functional import binary_cross_entropy_with_logits

from lvae_torch.distributions import Bernoulli, DiscretizedLogistic, GaussianLikelihood, LogisticMixture


def test_bernoulli_is_the_library_distribution() -> None:
    logits, x = 5 * torch.randn(20, 3, 4, 5, dtype=torch.float64), torch.rand(20, 3, 4, 5).round().double()
    expected = torch.distributions.Bernoulli(logits=logits).log_prob(x).flatten(1).sum(dim=1)
    torch.testing.assert_close(Bernoulli(logits).log_prob(x), expected, rtol=1e-12, atol=0)


def test_bernoulli_of_grey_values_is_the_cross_entropy() -> None:
    logits, x = 3 * torch.randn(20, 1, 2, 2, dtype=torch.float64), torch.rand(20, 1, 2, 2).double()
    p, q = logits.sigmoid(), (-logits).sigmoid()  # 1 - p has no digits left for 1e-12 where p is near one
    expected = (x * p.log() + (1 - x) * q.log()).flatten(1).sum(dim=1)
    for reference in (False, True):
        torch.testing.assert_close(Bernoulli(logits, reference).log_prob(x), expected, rtol=1e-12, atol=0)


def test_bernoulli_floor_only_where_the_reference_has_one() -> None:
    logits = torch.tensor([-300.0, 300.0, -99.0]).reshape(3, 1, 1, 1)
    x = torch.tensor([1.0, 0.0, 1.0]).reshape(3, 1, 1, 1)
    assert Bernoulli(logits).log_prob(x).tolist() == [-300, -300, -99]
    assert Bernoulli(logits, reference=True).log_prob(x).tolist() == [-100, -100, -99]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bernoulli_is_the_librarys_cross_entropy_in_value_and_gradient(dtype: torch.dtype) -> None:
    """At zero, where a network starts, and far out, where large terms cancel."""
    values = torch.tensor([-1e4, -90.0, -40.0, -17.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 17.0, 40.0, 90.0, 1e4], dtype=dtype)
    for value in (0.0, 0.3, 1.0):
        ours, theirs = (values.clone().reshape(-1, 1, 1, 1).requires_grad_() for _ in range(2))
        x = torch.full_like(ours, value)
        log_prob = Bernoulli(ours).log_prob(x)
        expected = -binary_cross_entropy_with_logits(theirs, x, reduction="none").flatten()
        torch.testing.assert_close(log_prob, expected, rtol=1e-6, atol=2 * torch.finfo(dtype).eps)
        for log_probs in (log_prob, expected):
            (2.0 * log_probs).sum().backward()  # type: ignore[no-untyped-call]
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=2 * torch.finfo(dtype).eps)


def test_gaussian_is_the_library_density() -> None:
    params, x = torch.randn(20, 6, 4, 5, dtype=torch.float64), torch.rand(20, 3, 4, 5).double()
    density = torch.distributions.Normal(params[:, :3], (0.5 * params[:, 3:]).exp())
    expected = density.log_prob(x).flatten(1).sum(dim=1)
    torch.testing.assert_close(GaussianLikelihood.from_params(params).log_prob(x), expected, rtol=1e-12, atol=0)


def library_log_mass(location: Tensor, scale: Tensor, below: Tensor, above: Tensor) -> Tensor:
    """log P(below < X < above) of a logistic, from the library's cdf."""
    logistic = TransformedDistribution(
        Uniform(torch.zeros_like(location), torch.ones_like(location), validate_args=False),
        [SigmoidTransform().inv, AffineTransform(location, scale)],
        validate_args=False,
    )
    cdf_below = torch.where(below == -torch.inf, 0.0, logistic.cdf(below.clamp(min=-1e9)))
    cdf_above = torch.where(above == torch.inf, 1.0, logistic.cdf(above.clamp(max=1e9)))
    return (cdf_above - cdf_below).log()


@some_levels
def test_discretized_logistic_is_a_difference_of_the_library_cdf(n_levels: int) -> None:
    location = torch.linspace(0.2, 0.8, 7, dtype=torch.float64)
    log_scale = torch.linspace(-2, 2, 7, dtype=torch.float64)
    likelihood = DiscretizedLogistic(location.reshape(-1, 1, 1, 1), log_scale.reshape(-1, 1, 1, 1), n_levels)
    for k in range(n_levels):
        below = torch.full_like(location, k / n_levels if k > 0 else -math.inf)
        above = torch.full_like(location, (k + 1) / n_levels if k < n_levels - 1 else math.inf)
        found = likelihood.log_prob(torch.full((7, 1, 1, 1), k / (n_levels - 1)).double())
        torch.testing.assert_close(found, library_log_mass(location, log_scale.exp(), below, above), rtol=1e-9, atol=0)


@pytest.mark.parametrize("n_levels", [2, 5, 256])
def test_mixture_is_a_weighted_sum_over_components(n_levels: int) -> None:
    """Written out for RGB and a fourth colour, one by one, from the library's cdf."""
    m = mixture(4, n_mixtures=4, n_levels=n_levels)
    logits, means, coefficients = (v[0, ..., 0, 0] for v in (m.mix_logits, m.means, m.coefficients))
    scales = (m.log_scales[0, ..., 0, 0] + 2).exp()  # wide, so that the plain difference is accurate
    m = LogisticMixture(m.mix_logits, m.means, m.log_scales + 2, m.coefficients, n_levels)
    half = 1 / (n_levels - 1)
    last = n_levels - 1
    for pixel in [(0, 0, 0, 0), (1, 0, 1, n_levels // 2), (last, n_levels // 2, last, 1)]:
        y = [2 * k / last - 1 for k in pixel]
        green_location = means[1] + coefficients[0] * y[0]
        blue_location = means[2] + coefficients[1] * y[0] + coefficients[2] * y[1]
        fourth_location = means[3] + coefficients[3] * y[0] + coefficients[4] * y[1] + coefficients[5] * y[2]
        locations = [means[0], green_location, blue_location, fourth_location]
        per_component = logits.log_softmax(dim=0)
        for c, k in enumerate(pixel):
            below = torch.full_like(logits, y[c] - half if k > 0 else -math.inf)
            above = torch.full_like(logits, y[c] + half if k < last else math.inf)
            per_component = per_component + library_log_mass(locations[c], scales[c], below, above)
        x = (torch.tensor(y).double().reshape(1, 4, 1, 1) + 1) / 2
        assert m.log_prob(x).item() == pytest.approx(per_component.logsumexp(dim=0).item(), rel=1e-9)


def exact_log_mass(location: float, log_scale: float, k: int) -> float:
    """The log mass of bin k of 256 in a thousand digits."""
    with localcontext() as context:
        context.prec = 1000
        scale = Decimal(log_scale).exp()
        below, above = (1 / (1 + (-(Decimal(j) / 256 - Decimal(location)) / scale).exp()) for j in (k, k + 1))
        return float(((Decimal(1) if k == 255 else above) - (Decimal(0) if k == 0 else below)).ln())


@pytest.mark.parametrize("k", [0, 1, 128, 254, 255])
@pytest.mark.parametrize(
    ("location", "log_scale"), [(-1.0, -7.0), (0.5, -7.0), (1.25, -5.0), (0.3, 3.0), (0.5, 9.0), (0.5, 25.0)]
)
def test_native_masses_are_exact_far_in_the_tails(k: int, location: float, log_scale: float) -> None:
    expected = exact_log_mass(location, log_scale, k)
    for dtype, digits in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        params = torch.tensor([location, log_scale], dtype=dtype).reshape(1, 2, 1, 1)
        found = DiscretizedLogistic(params[:, :1], params[:, 1:]).log_prob(torch.full((1, 1, 1, 1), k / 255).to(dtype))
        assert found.item() == pytest.approx(expected, rel=digits, abs=digits)


# Native forms are the published ones where those are accurate


def test_native_discretized_logistic_is_the_reference_where_its_floor_is_small() -> None:
    native = logistics()
    reference = DiscretizedLogistic(native.location, native.log_scale, reference=True)
    compared = 0
    for level in levels(256):
        x = level.expand(1, 300, 1, 1)
        for one, other in zip(per_sub_pixel(native, x), per_sub_pixel(reference, x), strict=True):
            if one > math.log(1e-3):
                assert other == pytest.approx(math.log(math.exp(one) + 1e-7), abs=1e-9)
                compared += 1
    assert compared > 1000


def per_sub_pixel(likelihood: DiscretizedLogistic, x: Tensor) -> list[float]:
    location, log_scale = likelihood.location.movedim(1, 0), likelihood.log_scale.movedim(1, 0)
    apart = DiscretizedLogistic(location, log_scale, likelihood.n_levels, likelihood.reference)
    return apart.log_prob(x.movedim(1, 0)).tolist()


def test_native_mixture_is_the_reference_but_for_small_masses() -> None:
    params, x = 0.3 * torch.randn(50, 100, 4, 4, dtype=torch.float64), torch.randint(256, (50, 3, 4, 4)).double() / 255
    params[:, [*range(20, 30), *range(50, 60), *range(80, 90)]] -= 1  # log scales near -1: no mass below 1e-5
    native, reference = (LogisticMixture.from_params(params, 3, 10, reference=r).log_prob(x) for r in (False, True))
    torch.testing.assert_close(native, reference, rtol=1e-7, atol=0)
