"""Efficient-VDVAE against numbers recorded from the original implementation (float64, recorded noise)."""

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

from lvae_torch.cfg.expressions import evaluate
from lvae_torch.cfg.reader import read_file
from lvae_torch.data.transforms import Preprocess
from lvae_torch.distributions import DiagonalGaussian, LogisticMixture, SmoothScale
from lvae_torch.distributions.logistic_mixture import eight_bit_span
from lvae_torch.elbo.bounds import elbo_terms
from lvae_torch.elbo.objective import Objective
from lvae_torch.interop.efficient_vdvae import from_reference
from lvae_torch.models.contract import Output
from lvae_torch.models.efficient_vdvae.bottleneck import SameConv2d
from lvae_torch.models.geometry import pad_to
from lvae_torch.models.sources import given_noise
from lvae_torch.training.flat import FlatParameters

COPIES = Path(__file__).resolve().parents[1] / "golden" / "efficient_vdvae"
ORIGINALS = Path(__file__).resolve().parents[3] / "shared" / "golden" / "efficient_vdvae"
FOLDERS = {path.name: path for root in (COPIES, ORIGINALS) for path in sorted(root.glob("model_*"))}
DOUBLE, SINGLE = (torch.float64, 1e-6), (torch.float32, 1e-4)
precisions = pytest.mark.parametrize(("dtype", "tolerance"), [DOUBLE, SINGLE], ids=["float64", "float32"])


@dataclass(frozen=True)
class Case:
    folder: Path
    options: Mapping[str, Any]
    """The original's cfg, all sections together."""
    arrays: dict[str, np.ndarray]

    @property
    def n_layers(self) -> int:
        return int(self.arrays["n_layers"])

    @property
    def is_binary(self) -> bool:
        return self.options["dataset_source"] == "binarized_mnist"

    def model(self, dtype: torch.dtype = torch.float64) -> Any:
        return from_reference(self.folder / "config.cfg", arrays_of(self.folder / "weights.npz")).to(dtype)

    def per_layer(self, name: str, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        return [double(self.arrays[f"{name}_{i:02}"]).to(dtype) for i in range(self.n_layers)]

    def images(self, name: str = "image_uint8", dtype: torch.dtype = torch.float64) -> Tensor:
        """As the preprocessing hands recorded pixels to a model, with all the digits of ``dtype``."""
        raw = torch.from_numpy(self.arrays[name])
        if self.is_binary:
            return raw[:, :, 2:30, 2:30].to(dtype)  # recorded with its padding
        preprocess = Preprocess(n_levels=256, n_bits=int(self.options["num_bits"]))
        last = preprocess.levels_after - 1
        x = preprocess.evaluation(raw, torch.arange(len(raw)))
        return torch.round(x.double() * last).to(dtype) / last

    def stored_scale(self, gaussian: DiagonalGaussian) -> Tensor:
        """What the original keeps of a scale: the std, or the network's output."""
        if self.options["distribution_base"] == "std":
            return gaussian.std
        return gaussian.log_std / self.options["gradient_smoothing_beta"]


def case_of(folder: Path) -> Case:
    options = {key: evaluate(entry.text) for (_, key), entry in read_file(folder / "config.cfg").items()}
    return Case(folder, options, arrays_of(folder / "vectors.npz"))


@pytest.fixture(scope="module", params=FOLDERS.values(), ids=FOLDERS)
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param)


def close(actual: Tensor, expected: np.ndarray, tolerance: float = 1e-6) -> None:
    """To ``tolerance`` of the value, or of 1 where it is smaller; maps are stored in float32."""
    assert_close(actual.detach().double(), double(expected), rtol=tolerance, atol=tolerance)


def decoded(model: Any, *arguments: Any, **how: Any) -> tuple[Output, Tensor]:
    """A pass, and the network's output on the whole canvas."""
    kept: list[Tensor] = []
    handle = model.output_conv.register_forward_hook(lambda module, inputs, y: kept.append(y))
    with torch.no_grad():
        out = model(*arguments, **how)
    handle.remove()
    return out, kept[0]


def on_the_axis(case: Case, x: Tensor) -> Tensor:
    """x as the original has its images: from -1 to 1."""
    return eight_bit_span(2 ** int(case.options["num_bits"])) * x - 1


def check_sample(case: Case, out: Output, expected: np.ndarray) -> None:
    noise = [double(case.arrays[name]).movedim(1, -1) for name in ("u_mix", "u_pix")]
    likelihood: Any = out.likelihood  # whose sample takes this noise
    close(on_the_axis(case, likelihood.sample(noise, case.options["output_temperature"])), expected)


@precisions
def test_inference(case: Case, dtype: torch.dtype, tolerance: float) -> None:
    """What the network sees, every Gaussian, the output, and all terms of the ELBO."""
    model, x = case.model(dtype), case.images(dtype=dtype)
    seen = x if model.span is None else model.span * x - 1
    close(pad_to(seen, case.arrays["input"].shape[2:]), case.arrays["input"], 1e-7)
    out, logits = decoded(model, x, given_noise(case.per_layer("eps", dtype)))
    close(logits, case.arrays["logits"], tolerance)
    for i, latent in enumerate(out.latents):
        for name, gaussian in (("post", latent.encoded), ("prior", latent.prior)):
            close(gaussian.mean, case.arrays[f"{name}_mean_{i:02}"], tolerance)
            close(case.stored_scale(gaussian), case.arrays[f"{name}_scale_{i:02}"], tolerance)
    terms = elbo_terms(x, out)
    close(terms.kl.T, case.arrays["kl_nats_per_example"], tolerance)
    close(terms.nll, case.arrays["recon_nats_per_example"], tolerance)
    if not case.is_binary and dtype == torch.float64:
        check_sample(case, out, case.arrays["sample_from_posterior_logits"])


def test_generation(case: Case) -> None:
    """From recorded noise at three settings of temperatures; the encoder's weights are never looked at."""
    model, noise = case.model(), case.per_layer("prior_eps")
    for name, parameter in model.named_parameters():
        if name.startswith(("input_conv", "up.")):
            parameter.data.fill_(torch.nan)
    per_stage = case.arrays["temps_linear_0.6_0.9"].tolist()
    linear = [t for t, stage in zip(per_stage, model.down_stages, strict=True) for _ in range(stage.n_blocks)]
    for name, temperatures in (("t1", [1.0] * len(noise)), ("t08", [0.8] * len(noise)), ("tlin", linear)):
        if f"prior_logits_{name}" not in case.arrays:
            continue
        scaled = [t * eps for t, eps in zip(temperatures, noise, strict=True)]
        out, logits = decoded(model, None, given_noise(scaled), n=len(noise[0]))
        close(logits, case.arrays[f"prior_logits_{name}"])
        if name == "t1":
            for latent, z in zip(out.latents, case.per_layer("prior_z_t1"), strict=True):
                close(latent.z, z.numpy())
        if f"prior_image_{name}" in case.arrays and not case.is_binary:
            check_sample(case, out, case.arrays[f"prior_image_{name}"])


def test_masked_variates(case: Case) -> None:
    if "masked_logits" not in case.arrays:
        pytest.skip("recorded for equal latent widths only")
    masks = torch.from_numpy(case.arrays["variate_masks"])[:, None, :, None, None]
    x, e_prior, e_post = case.images(), case.per_layer("mask_eps_prior"), case.per_layer("mask_eps_post")

    def source(i: int, prior: Any, posterior: Any) -> Tensor:
        return torch.where(masks[i], posterior.at_noise(e_post[i]), prior.at_noise(e_prior[i]))

    out, logits = decoded(case.model(), x, source)
    close(logits, case.arrays["masked_logits"])
    close(elbo_terms(x, out).kl.T, case.arrays["masked_kl_full_nats_per_example"])
    units = [latent.kl_of_units * mask for latent, mask in zip(out.latents, masks, strict=True)]
    close(torch.stack([kl.flatten(1).sum(1) for kl in units]), case.arrays["masked_kl_kept_nats_per_example"])


def objective_of(case: Case, n_dims: int) -> Objective:
    o = case.options
    start, steps = o["vae_beta_anneal_start"], o["vae_beta_anneal_steps"]
    return small.objective(
        n_dims,
        beta=("linear", start, 2 * start + steps, o["vae_beta_min"]),
        balance="kl_per_unit" if o["scaled_gamma"] else "kl",
        balance_steps=o["gamma_max_steps"],
    )


def test_loss_at_every_recorded_step(case: Case) -> None:
    model, x = case.model(), case.images()
    objective = objective_of(case, x[0].numel())
    with torch.no_grad():
        out = model(x, given_noise(case.per_layer("eps")))
    losses = torch.stack([objective(x, out, int(step))[0] for step in case.arrays["loss_steps"]])
    close(losses, case.arrays["loss_total"])


def test_three_training_steps(case: Case) -> None:
    """Loss, gradient norm of every parameter, and where Adamax takes them."""
    model = case.model().train()
    parameters = dict(model.named_parameters())
    flat = FlatParameters(model)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    optimizer = small.optimizer(flat)
    names = case.arrays["param_names"].tolist()
    assert set(names) == set(parameters)
    for t, step in enumerate(case.arrays["train_global_step"]):
        x, source = case.images(f"train_image_uint8_{t}"), given_noise(case.per_layer(f"train{t}_eps"))
        loss, _ = objective_of(case, x[0].numel())(x, model(x, source), int(step))
        flat.gradient.zero_()
        loss.backward()  # type: ignore[no-untyped-call]
        close(loss, case.arrays["train_total_loss"][t])
        close(flat.gradient.norm(), case.arrays["train_grad_global_norm"][t])
        if t == 0:
            norms = torch.stack([parameters[name].grad.norm() for name in names])
            close(norms, case.arrays["train0_param_grad_norm"])
        optimizer.param_groups[0]["lr"] = float(case.arrays["train_lr"][t])
        optimizer.step()
    moved = torch.stack([(parameters[name] - before[name]).norm() for name in names])
    close(moved, case.arrays["train_final_param_delta_norm"], 1e-5)


# Components


@pytest.fixture(params=[COPIES, ORIGINALS / "components"], ids=["copies", "originals"])
def components(request: pytest.FixtureRequest) -> Path:
    if not request.param.is_dir():
        pytest.skip("needs ../shared, which is not part of the repository")
    return request.param


def test_convolutions(components: Path) -> None:
    arrays = arrays_of(components / "conv_same.npz")
    for j in range(sum(key.startswith("x_") for key in arrays)):
        w, b = double(arrays[f"w_{j}"]), double(arrays[f"b_{j}"])
        conv = SameConv2d(w.shape[1], w.shape[0], tuple(w.shape[2:]), int(arrays[f"stride_{j}"])).double()
        conv.load_state_dict({"weight": w, "bias": b})
        close(conv(double(arrays[f"x_{j}"])), arrays[f"y_{j}"], 1e-9)


@pytest.mark.parametrize("name", ["std_beta0.693", "logstd_beta0.693", "logstd_beta0.400"])
def test_gaussians(components: Path, name: str) -> None:
    arrays = arrays_of(components / f"gaussian_kl_{name}.npz")
    scale = SmoothScale(name.split("_")[0], float(arrays["beta"]))  # type: ignore[arg-type]
    q, p = (
        DiagonalGaussian.from_mean_and_scale(
            torch.stack([double(arrays[f"{n}_mean"]), double(arrays[f"{n}_raw"])])[None], scale
        )
        for n in "qp"
    )
    for n, gaussian in (("q", q), ("p", p)):
        close(gaussian.std[0, 0], arrays[f"{n}_std"], 1e-7)
    close(q.kl(p)[0, 0], arrays["kl_nats"], 1e-7)


def pixel_mixture(arrays: dict[str, np.ndarray], base: str, dtype: torch.dtype, **how: Any) -> tuple[Any, Tensor]:
    """The likelihood of every recorded pixel, one an image, and the pixels."""
    n_levels = 2 ** int(arrays["num_bits"])
    beta, floor = float(arrays["output_gradient_smoothing_beta"]), float(arrays["min_mol_logscale"])
    likelihood = LogisticMixture.from_params(
        double(arrays["logits"]).to(dtype)[..., None, None],
        3,
        int(arrays["num_mixtures"]),
        n_levels,
        scale=SmoothScale(base, beta),  # type: ignore[arg-type]
        min_log_scale=floor * beta if base == "logstd" else floor,
        span=eight_bit_span(n_levels),
        **how,
    )
    x = (double(arrays["pixels_uint8"]) // (256 // n_levels)) / (n_levels - 1)
    return likelihood, x[..., None, None].to(dtype)


@pytest.mark.parametrize("base", ["std", "logstd"])
@pytest.mark.parametrize("bits", [8, 5])
def test_mixtures(components: Path, bits: int, base: str) -> None:
    """As published; with its log scale mended; with bins that tile the axis; and our own exact masses."""
    arrays = arrays_of(components / f"mol_{bits}bit_{base}.npz")
    published, x = pixel_mixture(arrays, base, torch.float64, reference=True, bins="overlapping")
    close(eight_bit_span(2**bits) * x[..., 0, 0] - 1, arrays["targets"], 1e-12)
    close(-published.log_prob(x), arrays["nll_nats"])
    fields = {name: getattr(published, name) for name in published.__dataclass_fields__}
    mended = LogisticMixture(**{**fields, "density_beta": 1.0})
    close(-mended.log_prob(x), arrays["nll_nats_consistent_logscale"])
    tiled = LogisticMixture(**{**fields, "density_beta": 1.0, "bins": "exact"})
    close(-tiled.log_prob(x), arrays["nll_nats_exact_bins"])
    exact, _ = pixel_mixture(arrays, base, torch.float64)
    gain = exact.log_prob(x) - tiled.log_prob(x)
    ordinary = slice(40)  # where the published approximation by the density is not needed, or is accurate
    assert gain[ordinary].abs().max() < 0.05
    assert gain.isfinite().all()


@pytest.mark.parametrize("base", ["std", "logstd"])
@pytest.mark.parametrize("bits", [8, 5])
def test_mixtures_in_float32(components: Path, bits: int, base: str) -> None:
    arrays = arrays_of(components / f"mol_{bits}bit_{base}.npz")
    likelihood, x = pixel_mixture(arrays, base, torch.float32, reference=True, bins="overlapping")
    found = -likelihood.log_prob(x).double()
    their_error = (double(arrays["nll_nats_float32_run"]) - double(arrays["nll_nats"])).abs().numpy()
    off = (found - double(arrays["nll_nats"])).abs().numpy()
    assert (off <= 1e-4 * np.maximum(1, np.abs(arrays["nll_nats"])) + 2 * their_error).all()


def test_normalisation(components: Path) -> None:
    arrays = arrays_of(components / "normalisation.npz")
    raw = torch.from_numpy(arrays["uint8"]).view(-1, 1, 1, 1)
    for bits in (8, 7, 5, 3):
        x = Preprocess(n_levels=256, n_bits=bits).evaluation(raw, torch.arange(len(raw)))
        close(eight_bit_span(2**bits) * x.flatten() - 1, arrays[f"normalized_{bits}bit"], 2e-7)
