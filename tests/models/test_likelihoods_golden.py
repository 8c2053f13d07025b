"""The likelihoods against the original spatial ladder VAE, run in float64 with recorded noise.

``golden/likelihoods.npz`` holds its numbers, with the names they have there. Images and scalars are compared to
1e-7, the gradients, which were kept in float32, to 1e-6.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lvae_torch.distributions import (
    Bernoulli,
    DiagonalGaussian,
    DiscretizedLogistic,
    GaussianLikelihood,
    LogisticMixture,
)

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "likelihoods.npz"


def load(path: Path) -> dict[str, Tensor]:
    """All arrays of a file, in float64."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]).double() for name in arrays.files}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load(GOLDEN)


def published_mixture(params: Tensor) -> LogisticMixture:
    return LogisticMixture.from_params(params, channels=3, n_mixtures=10, reference=True)


def logit(p: Tensor) -> Tensor:
    return p.log() - torch.log1p(-p)


def assert_equal(found: Tensor, expected: Tensor, rtol: float = 1e-7, atol: float = 1e-7) -> None:
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def test_mixture_and_its_gradient(golden: dict[str, Tensor]) -> None:
    params = golden["dmol_params"].requires_grad_()
    log_prob = published_mixture(params).log_prob(golden["dmol_x"])
    assert_equal(log_prob.detach(), golden["dmol_ll"], atol=1e-12)  # one is 0, from a component certain of its end
    (gradient,) = torch.autograd.grad(log_prob.sum(), params)
    largest = golden["dmol_grad"].abs().flatten(1).amax(dim=1)
    off = (gradient - golden["dmol_grad"]).abs().flatten(1).amax(dim=1)
    assert (off <= 1e-6 * largest + 1e-12).all()


def test_mixture_of_images(golden: dict[str, Tensor]) -> None:
    likelihood = published_mixture(golden["dmol_img_params"])
    assert_equal(likelihood.log_prob(golden["dmol_img_x"]), golden["dmol_img_ll"], atol=0)
    noise = golden["dmol_img_u_mix"], golden["dmol_img_u_logistic"]
    assert_equal(likelihood.sample(noise), golden["dmol_img_sample"])


def test_native_mixture_differs_only_where_the_published_one_approximates(golden: dict[str, Tensor]) -> None:
    native = LogisticMixture.from_params(golden["dmol_params"], 3, 10).log_prob(golden["dmol_x"])
    gain = (native - golden["dmol_ll"]).detach()
    narrow = torch.arange(len(gain)).ge(20) & torch.arange(len(gain)).lt(28)  # scales far below a bin's width
    assert gain.min() > -1e-11  # the density at the middle of a bin is below its mass in the tails
    assert gain[~narrow].max() < 1e-3
    assert gain[narrow].min() > 6


def test_discretized_logistic(golden: dict[str, Tensor]) -> None:
    likelihood = DiscretizedLogistic(golden["dlog_mean"], golden["dlog_logscale"], reference=True)
    assert_equal(likelihood.log_prob(golden["dlog_x"]), golden["dlog_ll"], atol=0)


def test_head_of_discretized_logistic(golden: dict[str, Tensor]) -> None:
    likelihood = DiscretizedLogistic.from_params(golden["dlog_raw_head_output"], reference=True)
    for image in (likelihood.location, likelihood.mean(), likelihood.mode()):
        assert_equal(image, golden["dlog_head_mean"])
    assert_equal(likelihood.log_scale, golden["dlog_head_logscale"])
    assert_equal(likelihood.sample(golden["dlog_u"]), golden["dlog_head_sample"])
    native = DiscretizedLogistic.from_params(golden["dlog_raw_head_output"])
    assert (native.sample(golden["dlog_u"]) - golden["dlog_head_sample"]).abs().max() <= 1 / 255


def test_bernoulli(golden: dict[str, Tensor]) -> None:
    likelihood = Bernoulli(logit(golden["bern_p"]), reference=True)
    assert_equal(likelihood.log_prob(golden["bern_x"]), golden["bern_ll"], atol=0)
    assert torch.equal(likelihood.mode()[:9], golden["bern_mode"])
    torch.testing.assert_close(likelihood.mean(), golden["bern_p"])


def test_gaussian(golden: dict[str, Tensor]) -> None:
    params = torch.cat([golden["gauss_mean"], golden["gauss_logvar"]], dim=1)
    assert_equal(GaussianLikelihood.from_params(params).log_prob(golden["gauss_x"]), golden["gauss_ll"], atol=0)


# With the whole set of numbers at hand


@pytest.mark.parametrize(
    ("prefix", "place"),
    [
        ("", "spatial_lvae/fn_likelihoods/likelihoods.npz"),
        ("fn_misc/", "spatial_lvae/fn_misc/misc.npz"),
        ("gaussian_kl/", "misc/gaussian_kl.npz"),
    ],
)
def test_our_copy_is_the_original(shared: Path, golden: dict[str, Tensor], prefix: str, place: str) -> None:
    original = load(shared / "golden" / place)
    copied = {name for name in original if f"{prefix}{name}" in golden}
    assert len(copied) >= 5
    assert all(torch.equal(original[name], load(GOLDEN)[f"{prefix}{name}"]) for name in copied)


MODELS = [
    "a_mnist3_seed_command_narrow",
    "b_dmol_5layer_colour32",
    "c_linear_merge_noskip_nogate_oddsize",
    "d_discrlog_nobn_cabdcabd_analytic_kl",
    "e_bernoulli_rgb64",
    "f_gaussian_no_initial_downscaling",
]


@pytest.mark.parametrize("run", ["infer", "prior"])
@pytest.mark.parametrize("model", MODELS)
def test_outputs_of_whole_models(shared: Path, model: str, run: str) -> None:
    """From the likelihoods' parameters that these runs recorded, in float32: hence the tolerances."""
    folder = shared / "golden" / "spatial_lvae" / model
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    out = load(folder / f"{run}.npz")
    likelihood: Any  # whose ``sample`` takes this noise
    noise: Any
    match json.loads((folder / "config.json").read_text())["likelihood"]:
        case "bernoulli":
            likelihood, noise = Bernoulli(logit(out["lik_prob"]), reference=True), out["u.0"]
        case "gaussian":
            likelihood = GaussianLikelihood(DiagonalGaussian(out["lik_mean"], 0.5 * out["lik_logvar"]))
            noise = out["eps_x"]
        case "discr_log":
            likelihood = DiscretizedLogistic(out["lik_mean"], out["lik_logscale"], reference=True)
            noise = out["u.0"]
        case _:
            likelihood, noise = published_mixture(out["lik_dmol"]), (out["u.0"], out["u.1"])
    assert_equal(likelihood.sample(noise), out["out_sample"], atol=1e-6)
    if "out_mode" in out:  # the original mixture has none
        assert_equal(likelihood.mode(), out["out_mode"])
        assert_equal(likelihood.mean(), out["lik_prob"] if "lik_prob" in out else out["out_mean"])
    if "log_lik" in out:
        assert_equal(likelihood.log_prob(out["x"]), out["log_lik"], rtol=1e-6, atol=0)
