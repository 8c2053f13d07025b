"""The autoregressive-flow prior: recorded numbers, what may depend on what, and that it is a density."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_cases import arrays_of, double
from golden_models.flow_prior import from_reference, reference_tensors
from torch import Tensor
from torch.testing import assert_close

from lvae_torch.distributions import AutoregressiveFlow, DiagonalGaussian
from lvae_torch.errors import DataError
from lvae_torch.interop.weights import copy_weights
from lvae_torch.models.contract import Latent
from lvae_torch.models.sources import masked
from lvae_torch.models.vae.flow_prior import FlowPrior
from lvae_torch.models.vae.made import MADE, cyclic_degrees

COPIES = Path(__file__).resolve().parents[1] / "golden" / "misc_vae"
ORIGINALS = Path(__file__).resolve().parents[3] / "shared" / "golden" / "misc"
WEIGHTS = ("W1", "b1", "W2", "b2", "W_mu", "b_mu", "W_scale", "b_scale")
D = 5


@pytest.fixture(params=[COPIES, ORIGINALS], ids=["copies", "originals"])
def arrays(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    if not request.param.is_dir():
        pytest.skip("needs ../shared, which is not part of the repository")
    return arrays_of(request.param / "made_prior.npz")


def recorded(arrays: dict[str, np.ndarray], bounded: bool) -> AutoregressiveFlow:
    """The recorded prior in float64, of as many draws as there are recorded."""
    weights = {name: arrays[name] for name in WEIGHTS}
    degrees = [arrays["deg_h1"].tolist(), arrays["deg_h2"].tolist()]
    prior = from_reference(4, degrees, weights, bounded).double()
    copy_weights(dict(reference_tensors(prior)), weights)  # again, with all the digits
    return prior(torch.zeros(len(arrays["z"]), 4, dtype=torch.float64))


def close(actual: Tensor, expected: np.ndarray) -> None:
    assert_close(actual.detach(), double(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bounded", [False, True])
def test_recorded_numbers(arrays: dict[str, np.ndarray], bounded: bool) -> None:
    p, tail = recorded(arrays, bounded), "_tanh" if bounded else ""
    z = double(arrays["z"])
    eps, log_scale = p.noise_and_log_scale(z)
    close(eps, arrays[f"eps{tail}"])
    close(log_scale.sum(dim=1), arrays[f"logdet{tail}"])
    close(p.log_prob(z).sum(dim=1), arrays[f"log_p{tail}"])
    q = DiagonalGaussian(double(arrays["mu_q"]), 0.5 * double(arrays["logvar_q"]))
    latent = Latent(z, p, q)
    close(q.log_prob(z).sum(dim=1), arrays["log_q"])
    close(latent.kl, arrays[f"kl{tail}"])
    close(latent.log_ratio, arrays[f"kl{tail}"])
    close(p.at_noise(double(arrays["eps_new"])), arrays[f"z_from_eps_new{tail}"])


def test_recorded_masks(arrays: dict[str, np.ndarray]) -> None:
    made: Any = recorded(arrays, True).network
    close(made[0].mask, arrays["mask1"])
    close(made[2].mask, arrays["mask2"])
    close(made[4].mask, np.concatenate([arrays["mask_out"]] * 2))


def test_recorded_dependence(arrays: dict[str, np.ndarray]) -> None:
    assert not dependence(recorded(arrays, True), 4)[~torch.from_numpy(arrays["may_depend"])].any()


def dependence(p: AutoregressiveFlow, n: int) -> Tensor:
    """[i, j]: how much shift and log scale of entry i react to z_j, at a few z."""
    z = torch.randn(7, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    jacobians = [torch.autograd.functional.jacobian(p.network, row[None]).reshape(2, n, n) for row in z]
    return torch.stack(jacobians).abs().sum(dim=(0, 1))


def flow(n: int = D, bounded: bool = True, n_draws: int = 3) -> AutoregressiveFlow:
    torch.manual_seed(0)
    prior = FlowPrior(n, (24, 16), bounded).double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.mul_(2)  # far from a standard normal
    return prior(torch.zeros(n_draws, n, dtype=torch.float64))


def test_an_entry_sees_all_before_it_and_nothing_else() -> None:
    assert torch.equal(dependence(flow(), D) > 0, torch.ones(D, D).tril(-1).bool())


@pytest.mark.parametrize("n", [1, 2])
def test_few_entries(n: int) -> None:
    p = flow(n)
    assert torch.equal(dependence(p, n) > 0, torch.ones(n, n).tril(-1).bool())
    assert p.rsample().shape == (3, n)


def test_every_hidden_unit_is_of_use() -> None:
    for n, widths in ((4, (9, 7)), (16, (512, 512)), (1, (3,))):
        for layer, width in zip(cyclic_degrees(n, widths), widths, strict=True):
            assert len(layer) == width and set(layer) <= set(range(max(1, n - 1)))
    made: Any = MADE(4, cyclic_degrees(4, (6,)))
    assert (made[2].mask.sum(dim=0) > 0).all()


@pytest.mark.parametrize("bounded", [False, True])
def test_drawing_undoes_measuring(bounded: bool) -> None:
    p = flow(bounded=bounded)
    z = torch.randn(3, D, dtype=torch.float64)
    eps = p.noise_of(z)
    assert_close(p.at_noise(eps), z, rtol=0, atol=1e-5)
    assert_close(p.noise_of(p.at_noise(z)), z, rtol=0, atol=1e-5)
    assert_close(p.mean, p.rsample(temperature=0.0))


def test_temperature_scales_the_noise() -> None:
    p = flow()
    torch.manual_seed(1)
    half = p.noise_of(p.rsample(0.5))
    torch.manual_seed(1)
    whole = p.noise_of(p.rsample())
    assert_close(2 * half, whole)


@pytest.mark.parametrize("bounded", [False, True])
def test_it_is_a_density(bounded: bool) -> None:
    """The integral over the plane is one, and the mean of draws is that of the density."""
    axis = torch.linspace(-14, 14, 401, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    p = flow(2, bounded, n_draws=4000)
    with torch.no_grad():
        mass = p.log_prob(z).sum(dim=1).exp() * (axis[1] - axis[0]) ** 2
        torch.manual_seed(0)
        draws = p.rsample()
    assert mass.sum().item() == pytest.approx(1, abs=1e-4)
    mean = (mass[:, None] * z).sum(dim=0)
    error = draws.std(dim=0) / math.sqrt(len(draws))
    assert ((draws.mean(dim=0) - mean).abs() < 5 * error).all()


def test_the_kl_is_the_log_ratio_at_the_draw_and_right_on_average() -> None:
    """Against an integral over a grid."""
    p = flow(2, n_draws=5_000)
    q = DiagonalGaussian(torch.tensor([0.4, -1.0]).double(), torch.tensor([-0.5, 0.2]).double())
    axis = torch.linspace(-9, 9, 241, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    many = DiagonalGaussian(q.mean.expand(5_000, 2), q.log_std.expand(5_000, 2))
    with torch.no_grad():
        log_q = q.log_prob(z).sum(dim=1)
        expected = (log_q.exp() * (log_q - p.log_prob(z).sum(dim=1))).sum().item() * (axis[1] - axis[0]).item() ** 2
        torch.manual_seed(0)
        latent = Latent(many.rsample(), p, many)
        found = latent.kl
    assert torch.equal(found, latent.log_ratio)
    assert_close(latent.kl_of_units.sum(dim=1), found)
    assert abs(found.mean().item() - expected) < 5 * found.std().item() / math.sqrt(len(found))


@pytest.mark.parametrize("kept", [0, 1])
def test_entries_that_are_not_kept_are_drawn_given_those_that_are(kept: int) -> None:
    """So that with the KL of the kept entries alone a pruned bound is one: its weights have the right mean."""
    n = 20_000
    p = flow(2, n_draws=n)
    q = DiagonalGaussian(torch.tensor([[0.4, -1.0]]).double().expand(n, 2), torch.full((n, 2), 0.3).double())
    axis = torch.linspace(-14, 14, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)

    def seen(z: Tensor) -> Tensor:  # in place of p(x | z): it ties the entries together
        return (-((z[:, 0] - z[:, 1]) ** 2)).exp()

    with torch.no_grad():
        expected = (p.log_prob(grid).sum(dim=1).exp() * seen(grid)).sum() * (axis[1] - axis[0]) ** 2
        torch.manual_seed(0)
        z = masked([torch.tensor([kept == 0, kept == 1])])(0, p, q)
        weights = seen(z) * (p.log_prob(z) - q.log_prob(z))[:, kept].exp()
    error = weights.std() / math.sqrt(n)
    assert error < 0.05 * expected and (weights.mean() - expected).abs() < 5 * error


def test_gradients_flow_through_draws() -> None:
    p = flow()
    eps = torch.randn(2, D, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(p.at_noise, (eps,))


def test_weights_that_do_not_fit_are_listed() -> None:
    arrays = arrays_of(COPIES / "made_prior.npz")
    weights = {name: arrays[name] for name in WEIGHTS if name != "b2"} | {"W3": arrays["W2"]}
    with pytest.raises(DataError) as caught:
        from_reference(4, [arrays["deg_h1"].tolist(), arrays["deg_h2"].tolist()], weights, bounded=True)
    assert "b2: missing" in str(caught.value)
    assert "W3: this model has no such weight" in str(caught.value)
