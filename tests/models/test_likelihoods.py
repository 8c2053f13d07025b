"""The likelihoods: probabilities that sum to one, frequencies of samples, shapes, gradients.

Closed forms are in ``test_likelihoods_closed_forms.py``, the numbers of the original spatial ladder VAE in
``test_likelihoods_golden.py``.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from likelihood_cases import levels, logistics, mixture, pixels, repeated, some_levels
from torch import Tensor

from lvae_torch.distributions import Bernoulli, DiscretizedLogistic, GaussianLikelihood, LogisticMixture
from lvae_torch.models.contract import Likelihood

HEADS: dict[str, tuple[int, Callable[[Tensor], Likelihood]]] = {  # channels of the head, for RGB
    "bernoulli": (3, Bernoulli.from_params),
    "bernoulli, reference": (3, partial(Bernoulli.from_params, reference=True)),
    "gaussian": (6, GaussianLikelihood.from_params),
    "logistic": (6, DiscretizedLogistic.from_params),
    "logistic, 2 levels": (6, partial(DiscretizedLogistic.from_params, n_levels=2)),
    "logistic, reference": (6, partial(DiscretizedLogistic.from_params, reference=True)),
    "mixture": (100, partial(LogisticMixture.from_params, channels=3, n_mixtures=10)),
    "mixture, 5 of 32 levels": (50, partial(LogisticMixture.from_params, channels=3, n_mixtures=5, n_levels=32)),
    "mixture, reference": (100, partial(LogisticMixture.from_params, channels=3, n_mixtures=10, reference=True)),
}
each_head = pytest.mark.parametrize("name", HEADS)


# Probabilities sum to one


def test_bernoulli_sums_to_one() -> None:
    likelihood = Bernoulli.from_params(torch.linspace(-80, 80, 50, dtype=torch.float64).reshape(-1, 1, 1, 1))
    total = sum(likelihood.log_prob(torch.full((50, 1, 1, 1), float(x)).double()).exp() for x in (0, 1))
    torch.testing.assert_close(total, torch.ones(50).double(), rtol=1e-14, atol=0)


@some_levels
def test_discretized_logistic_sums_to_one(n_levels: int) -> None:
    params = logistics(n_levels)
    location, log_scale = (v.movedim(1, 0) for v in (params.location, params.log_scale))  # one image each
    likelihood = DiscretizedLogistic(location, log_scale, n_levels)
    total = sum(likelihood.log_prob(level.expand(300, 1, 1, 1)).exp() for level in levels(n_levels))
    torch.testing.assert_close(total, torch.ones(300).double(), rtol=1e-12, atol=0)


@some_levels
@pytest.mark.parametrize("n_mixtures", [1, 4, 10])
def test_grey_mixture_sums_to_one(n_levels: int, n_mixtures: int) -> None:
    for seed in range(5):
        likelihood = repeated(mixture(1, n_mixtures, n_levels, seed), n_levels)
        assert likelihood.log_prob(levels(n_levels)).exp().sum().item() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(("channels", "n_levels"), [(2, 2), (2, 16), (3, 2), (3, 3), (3, 8), (4, 3)])
@pytest.mark.parametrize("n_mixtures", [1, 4])
def test_colour_mixture_sums_to_one(channels: int, n_levels: int, n_mixtures: int) -> None:
    x = pixels(channels, n_levels)
    total = repeated(mixture(channels, n_mixtures, n_levels), len(x)).log_prob(x).exp().sum()
    assert total.item() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("channels", [2, 3])
def test_summing_out_the_last_colour_leaves_the_mixture_of_the_others(channels: int) -> None:
    likelihood = mixture(channels, n_mixtures=10)
    before = torch.tensor([37, 255]).double()[: channels - 1].reshape(1, -1, 1, 1) / 255
    x = torch.cat([before.expand(256, -1, -1, -1), levels(256)], dim=1)
    summed = repeated(likelihood, 256).log_prob(x).logsumexp(dim=0, keepdim=True)
    torch.testing.assert_close(summed, repeated(likelihood, 1, channels - 1).log_prob(before), rtol=1e-12, atol=0)


# Moments, frequencies, shapes


@each_head
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_shapes_types_and_scale(name: str, dtype: torch.dtype) -> None:
    n_params, from_params = HEADS[name]
    torch.manual_seed(0)
    likelihood = from_params(torch.randn(2, n_params, 4, 5).to(dtype))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    log_prob = likelihood.log_prob(torch.rand(2, 3, 4, 5, dtype=wide).round())
    assert (log_prob.shape, log_prob.dtype) == ((2,), wide)
    for image in (likelihood.mean(), likelihood.mode(), likelihood.sample()):
        assert (image.shape, image.dtype) == ((2, 3, 4, 5), wide)
        if name not in ("gaussian", "logistic, reference"):
            assert image.min() >= 0 and image.max() <= 1


def test_head_sizes() -> None:
    assert [Bernoulli.n_params(c) for c in (1, 3)] == [1, 3]
    assert [GaussianLikelihood.n_params(c) for c in (1, 3)] == [2, 6]
    assert [DiscretizedLogistic.n_params(c) for c in (1, 3)] == [2, 6]
    assert [LogisticMixture.n_params(c, 10) for c in (1, 2, 3)] == [30, 60, 100]


def test_heads_are_read_channel_by_channel() -> None:
    grey = torch.arange(9.0).reshape(1, 9, 1, 1).expand(1, 9, 2, 1)
    m = LogisticMixture.from_params(grey, channels=1, n_mixtures=3)
    assert m.mix_logits[0, :, 0, 0].tolist() == [0, 1, 2]
    assert m.means[0, ..., 0, 0].tolist() == [[3, 4, 5]]
    assert m.log_scales[0, ..., 0, 0].tolist() == [[6, 7, 8]]
    assert m.coefficients.shape == (1, 0, 3, 2, 1)
    m = LogisticMixture.from_params(torch.arange(20.0).reshape(1, 20, 1, 1), channels=3, n_mixtures=2)
    assert m.means[0, ..., 0, 0].tolist() == [[2, 3], [8, 9], [14, 15]]
    assert m.log_scales[0, ..., 0, 0].tolist() == [[4, 5], [10, 11], [16, 17]]
    assert torch.equal(m.coefficients[0, ..., 0, 0], torch.tensor([[6.0, 7], [12, 13], [18, 19]]).tanh())


@each_head
def test_equal_seeds_give_equal_samples(name: str) -> None:
    n_params, from_params = HEADS[name]
    likelihood = from_params(torch.randn(2, n_params, 8, 8))
    draws = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        draws.append(likelihood.sample())
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("n_levels", [2, 8, 32, 256])
def test_native_samples_and_modes_are_levels(n_levels: int) -> None:
    torch.manual_seed(0)
    logistic = DiscretizedLogistic.from_params(torch.randn(50, 6, 4, 4), n_levels)
    colours = LogisticMixture.from_params(torch.randn(50, 100, 4, 4), 3, 10, n_levels)
    for image in (logistic.sample(), logistic.mode(), colours.sample(), colours.mode()):
        assert torch.equal(image, torch.round(image * (n_levels - 1)) / (n_levels - 1))


def test_reference_samples_are_clipped_but_not_quantised() -> None:
    torch.manual_seed(0)
    logistic = DiscretizedLogistic.from_params(torch.randn(50, 6, 4, 4), reference=True)
    colours = LogisticMixture.from_params(torch.randn(50, 100, 4, 4), 3, 10, reference=True)
    for image in (logistic.sample(), colours.sample()):
        assert image.min() == 0 and image.max() == 1 and len(image.unique()) > 500


def frequencies(samples: Tensor, n_levels: int) -> Tensor:
    """Counts of each pixel value in ``samples`` (N, C, 1, 1), in the order of ``pixels``."""
    k = torch.round(samples.flatten(1) * (n_levels - 1)).long()  # (N, C)
    place = n_levels ** torch.arange(k.shape[1]).flip(0)
    return torch.bincount((k * place).sum(dim=1), minlength=n_levels ** k.shape[1])


def assert_frequencies(counts: Tensor, probabilities: Tensor) -> None:
    n = counts.sum()
    error = (n * probabilities * (1 - probabilities)).sqrt()
    assert ((counts - n * probabilities).abs() < 5 * error + 1).all()


@pytest.mark.parametrize(("location", "log_scale"), [(0.4, -2.0), (0.0, -1.0), (1.3, -0.5)])
def test_frequencies_of_discretized_logistic(location: float, log_scale: float) -> None:
    n, n_levels = 200_000, 16
    torch.manual_seed(0)
    params = torch.tensor([location, log_scale]).double().reshape(1, 2, 1, 1)
    many, all_levels = (
        DiscretizedLogistic(params[:, :1].expand(m, 1, 1, 1), params[:, 1:].expand(m, 1, 1, 1), n_levels)
        for m in (n, n_levels)
    )
    counts = frequencies(many.sample(), n_levels)
    assert_frequencies(counts, all_levels.log_prob(levels(n_levels)).exp())


@pytest.mark.parametrize(("channels", "n_levels", "n_mixtures"), [(1, 16, 3), (2, 6, 1), (3, 4, 3)])
def test_frequencies_of_mixture(channels: int, n_levels: int, n_mixtures: int) -> None:
    torch.manual_seed(0)
    likelihood, x = mixture(channels, n_mixtures, n_levels, seed=1), pixels(channels, n_levels)
    counts = frequencies(repeated(likelihood, 200_000).sample(), n_levels)
    assert_frequencies(counts, repeated(likelihood, len(x)).log_prob(x).exp())


def test_means_are_the_means_of_samples() -> None:
    """With the mass within [0, 1], where ends and levels move little."""
    n = 100_000
    torch.manual_seed(0)
    params = torch.zeros(1, 20, 1, 1)
    params[0, :2, 0, 0] = torch.tensor([0.3, -0.3])  # weights
    params[0, [2, 3, 8, 9, 14, 15], 0, 0] = torch.tensor([0.4, -0.3, 0.1, -0.1, 0.2, 0.0])  # means
    params[0, [4, 5, 10, 11, 16, 17], 0, 0] = -3.5  # log scales
    params[0, [6, 7, 12, 13, 18, 19], 0, 0] = torch.tensor([0.5, -0.7, 0.3, 0.4, -0.6, 0.2])  # coefficients
    likelihoods: list[Likelihood] = [
        Bernoulli(torch.tensor([-1.0, 0.0, 2.0]).reshape(1, 3, 1, 1).expand(n, 3, 1, 1)),
        GaussianLikelihood.from_params(torch.tensor([0.2, 1.5, -2.0, 0.5]).reshape(1, 4, 1, 1).expand(n, 4, 1, 1)),
        DiscretizedLogistic.from_params(torch.tensor([0.1, -0.2, -3.0, -2.5]).reshape(1, 4, 1, 1).expand(n, 4, 1, 1)),
        LogisticMixture.from_params(params.expand(n, -1, -1, -1), 3, 2),
    ]
    for likelihood in likelihoods:
        samples = likelihood.sample()
        error = samples.std(dim=0) / n**0.5
        assert ((samples.mean(dim=0) - likelihood.mean()[0]).abs() < 5 * error + 2e-4).all(), likelihood


def test_modes() -> None:
    column = torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1)
    assert Bernoulli(column).mode().flatten().tolist() == [0, 0, 1]  # 0 at a tie
    location = torch.tensor([-0.3, 0.5, 1.2]).reshape(3, 1, 1, 1)
    logistic = DiscretizedLogistic(location, torch.full_like(location, -4.0))
    assert torch.equal(logistic.mode().flatten() * 255, torch.tensor([0.0, 128.0, 255.0]))
    assert torch.equal(logistic.mean(), location.clamp(0, 1))
    assert torch.equal(DiscretizedLogistic(location, location, reference=True).mode(), location)
    m = mixture(3, n_mixtures=4, n_levels=8)
    m = LogisticMixture(m.mix_logits, 0.3 * m.means, m.log_scales - 5, 0.3 * m.coefficients, 8)  # narrow, within
    m.mix_logits[0, 2] = 5.0
    x = pixels(3, 8)
    torch.testing.assert_close(m.mode()[0], x[repeated(m, len(x)).log_prob(x).argmax()])


# Gradients


@each_head
def test_gradients_are_finite_at_extremes_in_float32(name: str) -> None:
    n_params, from_params = HEADS[name]
    torch.manual_seed(0)
    # a Gaussian's density is too large or too small for a float where its log variance is near 90
    for size in (1.0, 10.0) if name == "gaussian" else (1.0, 30.0, 300.0, 1e4):
        params = (size * torch.randn(40, n_params, 4, 4)).requires_grad_()
        x = torch.randint(256, (40, 3, 4, 4)) / 255
        x[:20] = x[:20].round()
        log_prob = from_params(params).log_prob(x)
        log_prob.sum().backward()
        assert log_prob.isfinite().all() and params.grad is not None and params.grad.isfinite().all()


@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "logistic", "mixture", "mixture, 5 of 32 levels"])
def test_gradients_are_those_of_differences(name: str) -> None:
    n_params, from_params = HEADS[name]
    torch.manual_seed(0)
    n_levels = 32 if "32" in name else 256
    x = torch.tensor([0, 1, n_levels // 2, n_levels - 2, n_levels - 1, 7]).reshape(2, 3, 1, 1).double() / (n_levels - 1)
    for shift in (-2.0, 0.0, 20.0):  # also scales so wide that a bin's width is nearly nothing
        params = (torch.randn(2, n_params, 1, 1, dtype=torch.float64) + shift).requires_grad_()
        assert torch.autograd.gradcheck(lambda p: from_params(p).log_prob(x), params, eps=1e-5, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["bernoulli", "logistic", "mixture", "mixture, 5 of 32 levels"])
def test_float32_keeps_six_digits(name: str) -> None:
    n_params, from_params = HEADS[name]
    torch.manual_seed(0)
    for size in (0.3, 3.0, 100.0):
        params, x = size * torch.randn(20, n_params, 4, 4), torch.randint(32, (20, 3, 4, 4)) / 31
        x = torch.round(x * 255) / 255 if "32" not in name else x
        narrow, wide = from_params(params).log_prob(x), from_params(params.double()).log_prob(x.double())
        torch.testing.assert_close(narrow.double(), wide, rtol=2e-6, atol=0)
