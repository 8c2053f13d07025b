"""VDVAE against numbers recorded from openai/vdvae (float64, recorded noise)."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from golden_cases import arrays_of, double
from torch import Tensor
from torch.testing import assert_close

from lvae_torch.distributions.coarse import CoarseLikelihood
from lvae_torch.distributions.logistic_mixture import LogisticMixture, eight_bit_span
from lvae_torch.elbo.bounds import elbo_terms
from lvae_torch.interop.vdvae import DATASETS, from_reference, our_name, section_from_reference
from lvae_torch.models.contract import Output
from lvae_torch.models.sources import given_noise
from lvae_torch.training.ema import Ema
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.meter import Meter
from lvae_torch.training.optimization import learning_rate, make_optimizer
from lvae_torch.training.section import OptimizerSection
from lvae_torch.training.step import TrainStep

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "vdvae"
FOLDERS = {path.name: path for path in sorted(GOLDEN.glob("model_*"))}
DOUBLE, SINGLE = (torch.float64, 1e-6), (torch.float32, 1e-4)
precisions = pytest.mark.parametrize(("dtype", "tolerance"), [DOUBLE, SINGLE], ids=["float64", "float32"])
pytestmark = pytest.mark.skipif(not FOLDERS, reason="needs ../shared, which is not part of the repository")


@dataclass(frozen=True)
class Case:
    hparams: Mapping[str, Any]
    arrays: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    final: dict[str, np.ndarray]

    def model(self, dtype: torch.dtype = torch.float64) -> Any:
        return from_reference(self.hparams, self.weights).to(dtype)

    def per_layer(self, name: str, dtype: torch.dtype = torch.float64, first: int = 0) -> list[Tensor]:
        n = int(self.arrays["n_layers"])
        return [double(self.arrays[f"{name}_{i:02}"]).to(dtype) for i in range(first, n)]

    def images(self, name: str = "image_uint8", dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.from_numpy(self.arrays[name]).movedim(-1, 1).to(dtype) / 255


@pytest.fixture(scope="module", params=FOLDERS.values() or [None], ids=FOLDERS or ["none"])
def case(request: pytest.FixtureRequest) -> Case:
    hparams = json.loads((request.param / "config.json").read_text())
    names = ("vectors.npz", "weights.npz", "train_final.npz")
    return Case(hparams, *(arrays_of(request.param / name) for name in names))


def close(actual: Tensor, expected: np.ndarray, tolerance: float = 1e-6) -> None:
    assert_close(actual.detach().double(), double(expected), rtol=tolerance, atol=tolerance)


def recorded(model: Any, *arguments: Any, **how: Any) -> tuple[Output, Tensor, Tensor]:
    """A pass, what the last convolution gets, and what it gives."""
    kept: list[Tensor] = []
    handle = model.output_conv.register_forward_hook(lambda module, inputs, y: kept.extend([inputs[0], y]))
    with torch.no_grad():
        out = model(*arguments, **how)
    handle.remove()
    return out, kept[0], kept[1]


def space_mean(maps: Tensor) -> Tensor:
    return maps.mean(dim=(2, 3))


def noise_of(arrays: Mapping[str, np.ndarray]) -> tuple[Tensor, Tensor]:
    return double(arrays["u_mix"]), double(arrays["u_pix"])


def sampled(out: Output, arrays: Mapping[str, np.ndarray]) -> Tensor:
    """From -1 to 1, channels last."""
    likelihood: Any = out.likelihood
    return (likelihood.span * likelihood.sample(noise_of(arrays)) - 1).movedim(1, -1)


@precisions
def test_inference(case: Case, dtype: torch.dtype, tolerance: float) -> None:
    """What the networks see, every Gaussian, the output, and all terms of the ELBO."""
    model, x, arrays = case.model(dtype), case.images(dtype=dtype), case.arrays
    close(model.normalization(x).movedim(1, -1), arrays["input"], 1e-6 if dtype == torch.float64 else 1e-5)
    out, px_z, logits = recorded(model, x, given_noise(case.per_layer("eps", dtype)))
    for i, latent in enumerate(out.latents):
        for name, gaussian in (("post", latent.encoded), ("prior", latent.prior)):
            if f"{name}_mean_{i:02}" in arrays:
                close(gaussian.mean, arrays[f"{name}_mean_{i:02}"], tolerance)
                close(gaussian.log_std, arrays[f"{name}_logstd_{i:02}"], tolerance)
    if "px_z" in arrays:
        close(px_z, arrays["px_z"], tolerance)
    close(logits.movedim(1, -1), arrays["logits"], tolerance)
    terms = elbo_terms(x, out)
    close(terms.kl.T, arrays["kl_nats_per_example"], tolerance)
    n_dims = x[0].numel()
    close(terms.nll / n_dims, arrays["distortion_per_example"], tolerance)
    close(terms.nelbo.mean() / n_dims, arrays["elbo"], tolerance)
    if dtype == torch.float64:
        close(sampled(out, arrays), arrays["posterior_sample"])


def test_generation(case: Case) -> None:
    """At three settings of temperatures; the encoder's weights are never looked at."""
    model, noise, arrays = case.model(), case.per_layer("prior_eps"), case.arrays
    for name, parameter in model.named_parameters():
        if name.startswith(("input_conv", "bottom_up")) or ".posterior." in name:
            parameter.data.fill_(torch.nan)
    n = len(noise)
    for name, temperatures in (("t1", [1.0] * n), ("t085", [0.85] * n), ("tlist", arrays["t_list"].tolist())):
        scaled = [t * eps for t, eps in zip(temperatures, noise, strict=True)]
        out, px_z, logits = recorded(model, None, given_noise(scaled), n=len(noise[0]))
        close(space_mean(px_z), arrays[f"prior_px_z_mean_{name}"])
        if f"prior_logits_{name}_mean" in arrays:
            close(space_mean(logits), arrays[f"prior_logits_{name}_mean"])
        close(sampled(out, arrays), arrays[f"prior_sample_{name}"])


def test_an_image_s_own_first_latents_with_the_others_from_the_prior(case: Case) -> None:
    model, arrays, k = case.model(), case.arrays, int(case.arrays["partial_k"])
    own = case.per_layer("eps")[:k]
    cold = [0.1 * eps for eps in case.per_layer("prior_eps", first=k)]

    def source(i: int, prior: Any, posterior: Any) -> Tensor:
        return posterior.at_noise(own[i]) if i < k else prior.at_noise(cold[i - k])

    out, px_z, _ = recorded(model, case.images(), source)
    close(space_mean(px_z), arrays["partial_px_z_mean"])
    close(sampled(out, arrays), arrays["partial_sample"])


def test_gradients(case: Case) -> None:
    model, arrays = case.model().train(), case.arrays
    x = case.images()
    loss, _ = small.objective(x[0].numel())(x, model(x, given_noise(case.per_layer("eps"))), 0)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = dict(model.named_parameters())
    names = arrays["param_names"].tolist()
    assert {our_name(name) for name in names} == set(parameters)
    gradients = {name: parameters[our_name(name)].grad for name in names}  # type: ignore[index]
    close(torch.stack([gradients[name].norm() for name in names]), arrays["grad_norm_per_param"])
    whole = [key for key in arrays if key.startswith("grad:")]
    for key in whole:
        close(gradients[key.removeprefix("grad:")], arrays[key])
    assert whole


def step_of(case: Case, model: Any) -> TrainStep:
    """The step of a run with the recorded settings."""
    hyper = dict(zip(case.arrays["train_hyper_names"].tolist(), case.arrays["train_hyper"].tolist(), strict=True))
    section = OptimizerSection(
        name="adamw",
        learning_rate=hyper["lr"],
        betas=(hyper["beta1"], hyper["beta2"]),
        eps=hyper["eps"],
        weight_decay=hyper["wd"],
        warmup_steps=int(hyper["warmup_iters"]),
        warmup_from_zero=True,
        clip_norm=hyper["grad_clip"],
        skip_norm=hyper["skip_threshold"],
    )
    flat = FlatParameters(model)
    return TrainStep(
        section=section,
        bare=model,
        flat=flat,
        ema=Ema(model, hyper["ema_rate"], is_aged=True),
        objective=small.objective(math.prod(model.image_shape)),
        optimizer=make_optimizer(section, flat),
        learning_rate=learning_rate(section, 10_000),
        meter=Meter(len(model.latent_shapes()), torch.device("cpu")),
        preprocess=lambda raw: raw,
    )


def test_training_steps(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses, gradient norms, skipped steps, and where AdamW and the average take every weight."""
    model, arrays = case.model().train(), case.arrays
    step = step_of(case, model)
    averaged = dict(step.ema.model.named_parameters())  # type: ignore[union-attr]
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    parameters, names = dict(model.named_parameters()), [our_name(name) for name in arrays["param_names"].tolist()]
    for t in range(len(arrays["train_lr"])):
        monkeypatch.setattr("lvae_torch.training.step.posterior_sample", given_noise(case.per_layer(f"train{t}_eps")))
        assert step.learning_rate(t) == pytest.approx(arrays["train_lr"][t])
        skipped = float(step.meter.skips[0])
        x = case.images(f"train_image_uint8_{t}")
        loss, terms = step.objective(x, model(x, given_noise(case.per_layer(f"train{t}_eps"))), t)
        close(loss, arrays["train_elbo"][t])
        close(terms.kl.sum(dim=1).mean() / x[0].numel(), arrays["train_rate"][t])
        step(x, t)
        assert float(step.meter.skips[0]) - skipped == arrays["train_skipped"][t]
        for kind, of in (("param", parameters), ("ema", averaged)):
            moved = torch.stack([(of[name] - before[name]).norm() for name in names])  # type: ignore[index]
            close(moved, arrays[f"train{t}_{kind}_delta_norm_after"])
    for key, delta in case.final.items():
        kind, _, name = key.partition(":")
        of, ours = (parameters if kind == "param_delta" else averaged), our_name(name)
        close(of[ours] - before[ours], delta)  # type: ignore[index]


# Components


@pytest.mark.parametrize("bits", [8, 5])
def test_mixtures(bits: int) -> None:
    """Value, gradient and sample, with bins as published; seen with 8 bits, scored with fewer."""
    arrays = arrays_of(GOLDEN / "components" / f"dmol_{bits}bit.npz")
    params = double(arrays["logits"])[..., None, None].requires_grad_()
    likelihood = LogisticMixture.from_params(
        params, 3, int(arrays["num_mixtures"]), 2**bits, reference=True, span=eight_bit_span(2**bits),
        bins="overlapping_closed",
    )  # fmt: skip
    seen = double(arrays["pixels_uint8"])[..., None, None] / 255
    cut = (double(arrays["targets"])[..., None, None] + 1) / likelihood.span  # with the digits of their float32
    nll = -likelihood.log_prob(cut)
    close(nll, arrays["nll_nats"])
    close(-CoarseLikelihood(likelihood, 2**bits, 256).log_prob(seen), arrays["nll_nats"], 1e-5)
    (gradient,) = torch.autograd.grad(nll.sum(), params)
    close(gradient[..., 0, 0], arrays["grad_logits"])
    noise = double(arrays["u_mix"])[:, None, None], double(arrays["u_pix"])[:, None, None]
    span_only = {"span": 2.0, "n_levels": 256}  # theirs is not cut to the highest of the fewer levels
    fields = {name: getattr(likelihood, name) for name in likelihood.__dataclass_fields__} | span_only
    sample = 2 * LogisticMixture(**fields).sample(noise) - 1
    close(sample[..., 0, 0], arrays["sample"])


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_preprocessing(name: str) -> None:
    arrays = arrays_of(GOLDEN / "components" / "preprocess.npz")
    small = {"enc_blocks": f"{DATASETS[name].side}d{DATASETS[name].side},1", "width": 8, "bottleneck_multiple": 0.25}
    small |= {"dec_blocks": f"1,{DATASETS[name].side}m1", "custom_width_str": "", "zdim": 1, "no_bias_above": 1}
    section = section_from_reference({"dataset": name, "num_mixtures": 1, **small})
    side = DATASETS[name].side
    model: Any = section.build((3, side, side), 256)
    v = torch.arange(256)
    close(model.normalization(v.double() / 255), arrays[f"{name}_input"], 1e-6)
    n_levels = 2**section.likelihood_bits
    cut = torch.floor(v * n_levels / 256) / (n_levels - 1)
    close(eight_bit_span(n_levels) * cut - 1, arrays[f"{name}_target"], 1e-6)
