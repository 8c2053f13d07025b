"""The diagonal Gaussian against torch.distributions, sampling, and reference numbers.

``golden/likelihoods.npz``: numbers from formulas in float64 (``gaussian_kl/``) and from the original spatial ladder
VAE (the rest), with the arrays' names there.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from lvae_torch.distributions import DiagonalGaussian
from lvae_torch.distributions.gaussian import log_softplus

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "likelihoods.npz"


def golden(prefix: str) -> dict[str, Tensor]:
    """Arrays whose names begin with ``prefix``, without it, in float64."""
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        names = [name for name in arrays.files if name.startswith(prefix)]
        return {name.removeprefix(prefix): torch.from_numpy(arrays[name]).double() for name in names}


def gaussian(*size: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> DiagonalGaussian:
    g = torch.Generator().manual_seed(seed)
    mean, log_std = (3 * torch.randn(2, *size, generator=g, dtype=torch.float64)).to(dtype)
    return DiagonalGaussian(mean, log_std)


def normal(d: DiagonalGaussian) -> Normal:
    return Normal(d.mean, d.std)


def test_log_prob_is_the_normal_density() -> None:
    d, z = gaussian(5, 4, 3, 2), gaussian(5, 4, 3, 2, seed=1).mean
    torch.testing.assert_close(d.log_prob(z), normal(d).log_prob(z), rtol=1e-12, atol=1e-12)


def test_kl_is_the_closed_form() -> None:
    q, p = gaussian(50, 40), gaussian(50, 40, seed=1)
    torch.testing.assert_close(q.kl(p), kl_divergence(normal(q), normal(p)), rtol=1e-12, atol=1e-12)


def test_kl_is_the_mean_log_ratio() -> None:
    q = DiagonalGaussian(torch.tensor([0.3, -1.0, 2.0]).double(), torch.tensor([-0.5, 0.2, 0.0]).double())
    p = DiagonalGaussian(torch.tensor([0.0, 0.5, 2.0]).double(), torch.tensor([0.1, -0.3, 0.4]).double())
    torch.manual_seed(0)
    z = DiagonalGaussian(q.mean.expand(200_000, 3), q.log_std.expand(200_000, 3)).rsample()
    ratio = q.log_prob(z) - p.log_prob(z)
    error = ratio.std(dim=0) / len(z) ** 0.5
    assert ((ratio.mean(dim=0) - q.kl(p)).abs() < 5 * error).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kl_of_equals_is_exactly_zero(dtype: torch.dtype) -> None:
    q = gaussian(1000, dtype=dtype)
    q.mean.requires_grad_(), q.log_std.requires_grad_()
    kl = q.kl(DiagonalGaussian(q.mean.detach().clone(), q.log_std.detach().clone()))
    kl.sum().backward()
    assert kl.count_nonzero() == 0
    assert q.mean.grad is not None and q.mean.grad.count_nonzero() == 0
    assert q.log_std.grad is not None and q.log_std.grad.count_nonzero() == 0


@pytest.mark.parametrize("offset", [1e-2, 1e-3, 1e-4])
def test_kl_keeps_its_digits_near_equality(offset: float) -> None:
    """In float32, where e^(2r) - 1 - 2r written out keeps no digit at all at an offset of 1e-4."""
    p = DiagonalGaussian(torch.zeros(1), torch.zeros(1))
    q = DiagonalGaussian(torch.full((1,), offset), torch.full((1,), offset))
    shift, ratio = q.mean.double(), q.log_std.double()
    series = 0.5 * shift**2 + ratio**2 + 2 / 3 * ratio**3 + 1 / 3 * ratio**4
    torch.testing.assert_close(q.kl(p).double(), series, rtol=3e-7 / offset, atol=0)


def test_samples_have_the_moments_of_their_temperature() -> None:
    d = DiagonalGaussian(torch.full((400_000,), 2.0), torch.full((400_000,), -1.0))
    torch.manual_seed(0)
    for temperature in (1.0, 0.5):
        z = d.rsample(temperature)
        std = temperature * np.exp(-1.0)
        assert abs(z.mean().item() - 2) < 5 * std / len(z) ** 0.5
        assert abs(z.std().item() / std - 1) < 5 / (2 * len(z)) ** 0.5
    assert torch.equal(d.rsample(0.0), d.mean)


def test_samples_are_mean_plus_std_times_noise_and_carry_gradients() -> None:
    mean, log_std = torch.tensor([0.5, -2.0]).requires_grad_(), torch.tensor([0.1, -0.7]).requires_grad_()
    d, eps = DiagonalGaussian(mean, log_std), torch.tensor([1.5, -0.25])
    z = d.at_noise(eps)
    torch.testing.assert_close(z, mean + log_std.exp() * eps)
    z.sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones(2))
    torch.testing.assert_close(log_std.grad, (d.std * eps).detach())


def test_equal_seeds_give_equal_samples() -> None:
    d = gaussian(10)
    draws = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        draws.append(d.rsample())
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_from_mean_and_log_var_splits_the_channels() -> None:
    params = torch.randn(2, 6, 3, 3)
    d = DiagonalGaussian.from_mean_and_log_var(params)
    assert torch.equal(d.mean, params[:, :3])
    torch.testing.assert_close(d.std**2, params[:, 3:].exp())


def test_from_mean_and_log_var_bounds_the_log_std_on_both_sides() -> None:
    params = torch.tensor([[0.0, 0.0, 0.0, -90.0, 1.0, 400.0]])
    assert DiagonalGaussian.from_mean_and_log_var(params, 10.0).log_std.tolist() == [[-10.0, 0.5, 10.0]]
    assert DiagonalGaussian.from_mean_and_log_var(params).log_std.tolist() == [[-45.0, 0.5, 200.0]]


@pytest.mark.parametrize(
    ("given", "kept"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float32,) * 2, (torch.float64,) * 2],
)
def test_half_precision_is_widened(given: torch.dtype, kept: torch.dtype) -> None:
    d = DiagonalGaussian.from_mean_and_log_var(torch.randn(2, 4).to(given))
    assert {d.mean.dtype, d.log_std.dtype, d.rsample().dtype, d.kl(d).dtype, d.log_prob(d.mean).dtype} == {kept}


def test_merging_is_the_product_of_the_densities() -> None:
    """log q - log a - log b is one constant, the logarithm of the normaliser, for every z."""
    a, b = gaussian(20, 3), gaussian(20, 3, seed=1)
    q, z = a.merge(b), gaussian(7, 20, 3, seed=2).mean
    constant = q.log_prob(z) - a.log_prob(z) - b.log_prob(z)
    torch.testing.assert_close(constant, constant[:1].expand_as(constant), rtol=1e-9, atol=1e-6)
    overlap = Normal(a.mean, (a.std**2 + b.std**2).sqrt()).log_prob(b.mean)
    torch.testing.assert_close(constant[0], -overlap, rtol=1e-9, atol=1e-6)


def test_merging_widths_far_apart_leaves_the_narrow_one() -> None:
    narrow = DiagonalGaussian(torch.tensor([1.0]), torch.tensor([-60.0]))
    wide = DiagonalGaussian(torch.tensor([-5.0], requires_grad=True), torch.tensor([60.0], requires_grad=True))
    for q in (narrow.merge(wide), wide.merge(narrow)):
        assert (q.mean.item(), q.log_std.item()) == (1.0, -60.0)
        assert all(g.isfinite() for g in torch.autograd.grad(q.mean + q.log_std, [wide.mean, wide.log_std]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_softplus_is_finite_everywhere_and_smooth(dtype: torch.dtype) -> None:
    raw = torch.tensor(
        [-1e4, -800.0, -30.0 - 1e-4, -30.0 + 1e-4, -1.0, 0.0, 5.0, 800.0], dtype=dtype, requires_grad=True
    )
    y = log_softplus(raw)
    (slope,) = torch.autograd.grad(y.sum(), raw)
    exact = raw.detach().double().clamp(min=-700).exp().log1p()
    exact = torch.where(raw > 700, raw.double(), exact).log().where(raw > -700, raw.double())
    torch.testing.assert_close(y.double(), exact, rtol=1e-6 if dtype == torch.float32 else 1e-12, atol=0)
    assert slope.isfinite().all() and (slope > 0).all() and (slope <= 1 + 1e-6).all()


def test_golden_formulas() -> None:
    g = golden("gaussian_kl/")
    leaves = {name: g[name].requires_grad_() for name in ("mu_q", "logvar_q", "mu_p", "logvar_p")}
    q, p = (DiagonalGaussian.from_mean_and_log_var(torch.cat([g[f"mu_{n}"], g[f"logvar_{n}"]], dim=1)) for n in "qp")
    standard = DiagonalGaussian(torch.zeros_like(q.mean), torch.zeros_like(q.mean))
    z = q.at_noise(g["eps"])
    found = {
        "kl": q.kl(p),
        "kl_residual": q.kl(p),
        "kl_sum": q.kl(p).sum(dim=1),
        "kl_std": q.kl(standard),
        "kl_std_sum": q.kl(standard).sum(dim=1),
        "z": z,
        "log_q": q.log_prob(z),
        "log_p": p.log_prob(z),
        "kl_sample": q.log_prob(z) - p.log_prob(z),
    }
    gradients = torch.autograd.grad(q.kl(p).sum(), list(leaves.values()))
    found |= {f"grad_{name}": gradient for name, gradient in zip(leaves, gradients, strict=True)}
    for name, value in found.items():
        assert torch.allclose(value, g[name], rtol=1e-9, atol=1e-12), name
    assert found["kl"][0, 0] == 0


def test_golden_kl_of_the_spatial_lvae() -> None:
    g = golden("fn_misc/kl_")
    q, p = (DiagonalGaussian.from_mean_and_log_var(g[f"{n}_mu_logvar"]) for n in "qp")
    torch.testing.assert_close(q.kl(p), g["analytic_elementwise"], rtol=1e-9, atol=1e-12)
    # the original holds log(2 pi) in float32, which cancels here
    torch.testing.assert_close(q.log_prob(g["z"]) - p.log_prob(g["z"]), g["mc_elementwise"], rtol=1e-9, atol=1e-12)
