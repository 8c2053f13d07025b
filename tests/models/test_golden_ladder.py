"""The fully-connected ladder and its formulas against numbers computed apart from this program, in float64."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_cases import arrays_of, double, fed_in_order
from golden_models.ladder import from_reference, generative_tensors, reference_tensors
from torch import Tensor
from torch.testing import assert_close

from lvae_torch.distributions import DiagonalGaussian
from lvae_torch.distributions.gaussian import log_softplus
from lvae_torch.elbo.bounds import elbo_terms, iw_bound, log_weight
from lvae_torch.elbo.objective import constant_beta, linear_warmup
from lvae_torch.errors import DataError
from lvae_torch.interop.weights import copy_weights
from lvae_torch.models.contract import Latent, Output
from lvae_torch.models.ladder.ladder_vae import LadderVAE
from lvae_torch.models.ladder.section import HierarchicalVAESection
from lvae_torch.models.sources import given_latents, given_noise

COPIES = Path(__file__).resolve().parents[1] / "golden" / "misc_ladder"
ORIGINALS = Path(__file__).resolve().parents[3] / "shared" / "golden" / "misc"
SIZES = {"image_shape": (1, 2, 3), "z_dims": (3, 2, 2), "widths": (5, 4, 3)}
DOUBLE, SINGLE = (torch.float64, 1e-9), (torch.float32, 1e-4)
precisions = pytest.mark.parametrize(("dtype", "rtol"), [DOUBLE, SINGLE], ids=["float64", "float32"])


@pytest.fixture(params=[COPIES, ORIGINALS], ids=["copies", "originals"])
def folder(request: pytest.FixtureRequest) -> Path:
    if not request.param.is_dir():
        pytest.skip("needs ../shared, which is not part of the repository")
    return request.param


def close(actual: Tensor, expected: np.ndarray, rtol: float = 1e-9) -> None:
    assert_close(actual.detach().double(), double(expected), rtol=rtol, atol=1e-5 if rtol > 1e-6 else 1e-12)


def weights_of(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key.removeprefix("par_"): array for key, array in arrays.items() if key.startswith("par_")}


def ladder(arrays: dict[str, np.ndarray], dtype: torch.dtype) -> LadderVAE:
    model = from_reference(SIZES | {"leaky_slope": arrays["leaky_slope"]}, weights_of(arrays)).to(dtype)
    copy_weights(dict(reference_tensors(model)), weights_of(arrays))  # again, with all the digits
    return model


def images(arrays: dict[str, np.ndarray], dtype: torch.dtype) -> Tensor:
    return double(arrays["x"]).view(-1, *SIZES["image_shape"]).to(dtype)


def top_down(arrays: dict[str, np.ndarray], name: str, dtype: torch.dtype) -> list[Tensor]:
    """``name1``, ``name2``, ... top first, each (draws, B, D)."""
    return [double(arrays[f"{name}{i}"]).to(dtype) for i in (3, 2, 1)]


@precisions
def test_tiny_ladder(folder: Path, dtype: torch.dtype, rtol: float) -> None:
    """Every number of a whole pass, for each draw of the noise."""
    arrays = arrays_of(folder / "tiny_lvae.npz")
    model, x = ladder(arrays, dtype), images(arrays, dtype)
    noise = top_down(arrays, "eps", dtype)
    for i, params in zip((3, 2, 1), model.encode(x), strict=True):
        likelihood = DiagonalGaussian.from_mean_and_softplus(params)
        close(likelihood.mean, arrays[f"mu_hat{i}"], rtol)
        close(likelihood.std**2, arrays[f"var_hat{i}"], rtol)
    for k in range(len(noise[0])):
        out = model(x, given_noise([eps[k] for eps in noise]))
        for i, latent in zip((3, 2, 1), out.latents, strict=True):
            found = {
                "mu_p": latent.prior.mean,
                "var_p": latent.prior.std**2,
                "mu_q": latent.encoded.mean,
                "var_q": latent.encoded.std**2,
                "z": latent.z,
                "kl": latent.kl,
                "kl_sample": latent.log_ratio,
            }
            for name, value in found.items():
                close(value, arrays[f"{name}{i}"][k], rtol)
        logits: Any = out.likelihood
        close(logits.logits.flatten(1), arrays["logits"][k], rtol)
        close(out.likelihood.log_prob(x), arrays["log_px"][k], rtol)
        close(log_weight(x, out), arrays["log_w"][k], rtol)
        close(-elbo_terms(x, out).nelbo, arrays["elbo_analytic_kl"][k], rtol)


@precisions
@pytest.mark.parametrize("chunk", [3, 6, 100])
def test_bound_of_the_tiny_ladder(folder: Path, dtype: torch.dtype, rtol: float, chunk: int) -> None:
    arrays = arrays_of(folder / "tiny_lvae.npz")
    model, x = ladder(arrays, dtype), images(arrays, dtype)
    noise = top_down(arrays, "eps", dtype)
    close(iw_bound(model, x, 4, chunk, fed_in_order(noise, len(x))), arrays["iw_bound"], rtol)
    close(iw_bound(model, x, 1, chunk, fed_in_order(noise, len(x))), arrays["elbo_k1"], rtol)


def test_the_bottom_up_baseline_has_the_same_generative_model(folder: Path) -> None:
    """Its prior and likelihood at the ladder's recorded latents are the ladder's."""
    arrays = arrays_of(folder / "tiny_lvae.npz")
    section = HierarchicalVAESection(z_dims=SIZES["z_dims"], widths=SIZES["widths"], batch_norm=False)
    model = section.build(SIZES["image_shape"], n_levels=2).double()
    weights = {k: a for k, a in weights_of(arrays).items() if not k.startswith("up")}
    copy_weights(dict(generative_tensors(model.generative)), weights)
    x, latents = images(arrays, torch.float64), top_down(arrays, "z", torch.float64)
    for k in range(len(latents[0])):
        out = model(None, given_latents([z[k] for z in latents]), n=len(x))
        for i, latent in zip((3, 2, 1), out.latents, strict=True):
            close(latent.prior.mean, arrays[f"mu_p{i}"][k])
            close(latent.prior.std**2, arrays[f"var_p{i}"][k])
        close(out.likelihood.log_prob(x), arrays["log_px"][k])


@precisions
def test_merge(folder: Path, dtype: torch.dtype, rtol: float) -> None:
    arrays = arrays_of(folder / "gaussian_merge.npz")
    hat, prior = (
        DiagonalGaussian(double(arrays[f"mu_{n}"]).to(dtype), double(0.5 * np.log(arrays[f"var_{n}"])).to(dtype))
        for n in ("hat", "prior")
    )
    for one, other in ((hat, prior), (prior, hat)):  # the product has no order
        q = one.merge(other)
        close(q.mean, arrays["mu_q"], rtol)
        close(q.std**2, arrays["var_q"], rtol)


@precisions
def test_softplus_variances(folder: Path, dtype: torch.dtype, rtol: float) -> None:
    arrays = arrays_of(folder / "gaussian_merge.npz")
    pairs = [("softplus_in", "softplus_out"), *((f"raw_{n}", f"softplus_raw_{n}") for n in ("hat", "prior"))]
    for given, expected in pairs:
        raw = double(arrays[given]).to(dtype)
        gaussian = DiagonalGaussian.from_mean_and_softplus(torch.stack([0 * raw, raw], dim=1))
        close(gaussian.std[:, 0] ** 2, arrays[expected], rtol)
        assert log_softplus(raw).isfinite().all()


@dataclass(frozen=True)
class _Fixed:
    """A likelihood that says what it was told."""

    value: Tensor  # (B,)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.value


@dataclass
class _Weighted:
    """A model whose importance weights are given: log p(x|z) is log w, and q equals p."""

    log_w: Tensor  # (B, K)
    used: int = 0

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x,)

    def decode(self, features: Sequence[Tensor], source: Any, n: int | None = None) -> Output:
        zeros = torch.zeros(len(features[0]), 1, dtype=torch.float64)
        p, k = DiagonalGaussian(zeros, zeros), len(zeros) // len(self.log_w)
        value = self.log_w[:, self.used : self.used + k].T.reshape(-1)
        self.used += k
        likelihood: Any = _Fixed(value)
        return Output(likelihood, (Latent(zeros, p, p),))


@pytest.mark.parametrize("at_once", [1, 3, 8])
def test_bound_of_given_weights(folder: Path, at_once: int) -> None:
    """Also with weights near e^-10000 and an outlier; in one pass or several."""
    arrays = arrays_of(folder / "iw_bound.npz")
    log_w = double(arrays["log_w"])
    model: Any = _Weighted(log_w)
    bound = iw_bound(model, torch.zeros(len(log_w), 1, 1, 1), log_w.shape[1], chunk=at_once * len(log_w))
    close(bound, arrays["bound"])
    close(bound.mean(), arrays["bound_batch_mean"])


@pytest.mark.parametrize("case", range(6))
def test_beta_schedule_of_epochs(folder: Path, case: int) -> None:
    arrays = arrays_of(folder / "beta_schedule.npz")
    n_t, start = int(arrays[f"case{case}_nt"]), float(arrays[f"case{case}_start"])
    beta = linear_warmup(n_t, start) if n_t else constant_beta(1.0)
    expected = arrays[f"case{case}_beta"]
    assert [beta(done) for done in range(len(expected))] == pytest.approx(expected.tolist(), rel=1e-12)


def test_beta_schedule_of_steps(folder: Path) -> None:
    arrays = arrays_of(folder / "beta_schedule.npz")
    beta = linear_warmup(int(arrays["step_T"]))
    assert [beta(int(t)) for t in arrays["step_t"]] == pytest.approx(arrays["step_beta"].tolist(), rel=1e-12)


def test_weights_that_do_not_fit_are_listed() -> None:
    arrays = arrays_of(COPIES / "tiny_lvae.npz")
    weights = weights_of(arrays)
    weights["down7_1_W"] = weights.pop("down2_1_W")
    weights["out_1_b"] = weights["out_1_b"][:-1]
    with pytest.raises(DataError) as caught:
        from_reference(SIZES | {"leaky_slope": 0.1}, weights)
    message = str(caught.value)
    assert "down2_1_W: missing" in message
    assert "down7_1_W: this model has no such weight" in message
    assert "out_1_b: has shape (4,), needs (5,)" in message
