"""The JAX half of Efficient-VDVAE: its real checkpoints, and numbers recorded from its own code (float64)."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from golden_cases import arrays_of, double
from test_golden_efficient_vdvae import close, decoded
from torch import Tensor

from lvae_torch.cfg.expressions import evaluate
from lvae_torch.cfg.reader import read_file
from lvae_torch.distributions import DiagonalGaussian, LogisticMixture, SmoothScale
from lvae_torch.distributions.logistic_mixture import eight_bit_span
from lvae_torch.elbo.bounds import elbo_terms
from lvae_torch.elbo.objective import Objective
from lvae_torch.interop.efficient_vdvae import from_reference
from lvae_torch.interop.efficient_vdvae_jax import colour_last, our_name, tensors
from lvae_torch.interop.flax_state import FlaxState
from lvae_torch.models.sources import given_noise
from lvae_torch.training.ema import Ema
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.optimization import decay_before_steps

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "efficient_vdvae_jax"
FOLDERS = {path.name: path for path in sorted(GOLDEN.glob("model_*"))}
pytestmark = pytest.mark.skipif(not FOLDERS, reason="needs ../shared, which is not part of the repository")


@dataclass(frozen=True)
class Case:
    folder: Path
    options: Mapping[str, Any]
    arrays: dict[str, np.ndarray]
    state: FlaxState

    @property
    def is_binary(self) -> bool:
        return bool(self.options["dataset_source"] == "binarized_mnist")

    @property
    def n_mixtures(self) -> int | None:
        return None if self.is_binary else int(self.options["num_output_mixtures"])

    @property
    def cfg(self) -> Path:
        (path,) = self.folder.glob("logs-*/*.cfg")
        return path

    def tensors(self, part: str) -> dict[str, Tensor]:
        return dict(tensors(self.state, part, self.options["up_n_blocks_per_res"], self.n_mixtures)())

    def model(self, part: str = "params") -> Any:
        return from_reference(self.cfg, self.tensors(part)).double()

    def noise(self, name: str) -> list[Tensor]:
        return [double(self.arrays[f"{name}_{i:02}"]) for i in range(int(self.arrays["n_layers"]))]

    def images(self, name: str) -> Tensor:
        """x in [0, 1] from the recorded network input, NCHW, without MNIST's padding."""
        seen = double(self.arrays[name])
        return seen[:, :, 2:30, 2:30] if self.is_binary else torch.round((seen + 1) * 127.5) / 255

    def in_jax_order(self, logits: Tensor) -> Tensor:
        if self.n_mixtures is None:
            return logits
        theirs = torch.empty_like(logits)
        theirs[:, colour_last(self.n_mixtures, logits.shape[1])] = logits
        return theirs

    def objective(self, n_dims: int) -> Objective:
        o = self.options
        start, steps = int(o["vae_beta_anneal_start"]), int(o["vae_beta_anneal_steps"])
        beta: Any = ("linear", start, 2 * start + steps, o["vae_beta_min"])
        if o["variation_schedule"] == "Logistic":
            beta = ("logistic", o["vae_beta_activation_steps"], o["vae_beta_growth_rate"])
        balance = "kl_per_unit" if o["scaled_gamma"] else "kl"
        return small.objective(n_dims, beta=beta, balance=balance, balance_steps=int(o["gamma_max_steps"]))


@pytest.fixture(scope="module", params=FOLDERS.values() or [None], ids=FOLDERS or ["none"])
def case(request: pytest.FixtureRequest) -> Case:
    (checkpoint,) = request.param.glob("checkpoints-*/*")
    (cfg,) = request.param.glob("logs-*/*.cfg")
    options = {key: entry.text if key == "name" else evaluate(entry.text) for (_, key), entry in read_file(cfg).items()}
    return Case(request.param, options, arrays_of(request.param / "vectors.npz"), FlaxState(checkpoint))


def test_every_tensor_arrives_where_it_belongs(case: Case) -> None:
    """Weights, averages and both moments of every parameter, at a recorded place of each."""
    parts = {part: case.tensors(part) for part in ("params", "ema_params", "opt_state/0/mu", "opt_state/0/nu")}
    with open(case.folder / "names.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {row["neutral_name"] for row in rows} == set(parts["params"])
    for row in rows:
        name, place = row["neutral_name"], tuple(json.loads(row["probe_index"]))
        assert list(parts["params"][name].shape) == json.loads(row["torch_shape"])
        for part, column in zip(parts, ("params", "ema_params", "mu", "nu"), strict=True):
            assert float(parts[part][name][place]) == pytest.approx(float(row[column]), rel=1e-6), (part, name)
        assert float(parts["params"][name].double().sum()) == pytest.approx(
            float(row["sum_params"]), rel=1e-5, abs=1e-5
        )


@pytest.mark.parametrize("part", ["params", "ema_params"])
def test_inference(case: Case, part: str) -> None:
    model, x, arrays = case.model(part), case.images("input"), case.arrays
    out, logits = decoded(model, x, given_noise(case.noise("eps")))
    terms, prefix = elbo_terms(x, out), "ema_" if part == "ema_params" else ""
    close(terms.kl.T, arrays[f"{prefix}kl_nats_per_example"])
    close(terms.nll, arrays[f"{prefix}recon_nats_per_example"])
    if not prefix:
        close(case.in_jax_order(logits), arrays["logits"])
        n_dims = terms.nelbo.numel() * x[0].numel()
        close(terms.nelbo.sum() / n_dims, arrays["elbo_nats_per_dim"])


def test_generation(case: Case) -> None:
    model, noise, arrays = case.model(), case.noise("prior_eps"), case.arrays
    _, logits = decoded(model, None, given_noise(noise), n=len(noise[0]))
    close(case.in_jax_order(logits), arrays["prior_logits_t1"])
    _, logits = decoded(model, None, given_noise([0.8 * eps for eps in noise]), n=len(noise[0]))
    close(case.in_jax_order(logits).mean(dim=(2, 3)), arrays["prior_logits_mean_t08"])


def test_loss_at_every_recorded_step(case: Case) -> None:
    model, x = case.model(), case.images("input")
    objective = case.objective(x[0].numel())
    with torch.no_grad():
        out = model(x, given_noise(case.noise("eps")))
    losses = torch.stack([objective(x, out, int(step))[0] for step in case.arrays["loss_steps"]])
    close(losses, case.arrays["loss_total"], 1e-8)  # theirs has beta in float32


def test_three_more_training_steps(case: Case) -> None:
    """From the checkpoint's weights, moments, counts and averages; a float32 schedule there costs 2e-9 of the loss."""
    o, arrays = case.options, case.arrays
    model = case.model().train()
    averaged, parameters = case.model("ema_params"), dict(model.named_parameters())
    flat = FlatParameters(model)
    ema = Ema(averaged, float(arrays["train_ema_decay"]), is_aged=True)
    optimizer = small.optimizer(flat, betas=(o["beta1"], o["beta2"]), eps=o["epsilon"])
    decay_before_steps(optimizer, model.block_weights(), o["l2_weight"])
    moments = optimizer.state[flat.vector]
    for key, part in (("exp_avg", "opt_state/0/mu"), ("exp_inf", "opt_state/0/nu")):
        theirs = case.tensors(part)
        for name, piece in zip(parameters, flat.pieces(moments[key]), strict=True):
            piece.copy_(theirs[name])
    step = int(case.state.number("step") or 0)
    assert step == int(arrays["checkpoint_step"])
    moments["step"].fill_(step)
    begun = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    begun_ema = {name: parameter.detach().clone() for name, parameter in ema.model.named_parameters()}
    names = [_ours(case, name) for name in arrays["param_names"].tolist()]
    rate = small.rate(
        o["learning_rate_scheme"], 10**6, learning_rate=o["learning_rate"], warmup_steps=int(o["warmup_steps"]),
        final_learning_rate=o["min_learning_rate"], decay_start=int(o["decay_start"]),
        decay_end=int(o["decay_start"] + o["decay_steps"]), warmup_from_zero=True,
    )  # fmt: skip
    for t, at in enumerate(arrays["train_global_step"].tolist()):
        x = case.images(f"train_input_{t}")
        loss, _ = case.objective(x[0].numel())(x, model(x, given_noise(case.noise(f"train{t}_eps"))), at)
        flat.gradient.zero_()
        loss.backward()  # type: ignore[no-untyped-call]
        close(loss, arrays["train_total_loss"][t], 1e-8)
        close(flat.gradient.norm(), arrays["train_grad_global_norm"][t])
        assert rate(at) == pytest.approx(arrays["train_lr"][t], rel=1e-6)
        optimizer.param_groups[0]["lr"] = float(arrays["train_lr"][t])
        with torch.no_grad():  # as a guarded step is taken
            optimizer.step()
        ema.update(flat, flat.vector.new_tensor(ema.share_at(at)))
        of = dict(ema.model.named_parameters())
        moved = torch.stack([(parameters[name] - begun[name]).norm() for name in names])
        close(moved, arrays[f"train{t}_param_delta_norm_after"])
        moved = torch.stack([(of[name] - begun_ema[name]).norm() for name in names])
        close(moved, arrays[f"train{t}_ema_delta_norm_after"])


def _ours(case: Case, path: str) -> str:
    name = our_name(path.removeprefix("params/"), case.options["up_n_blocks_per_res"])
    assert name is not None, path
    return name


@pytest.mark.parametrize("base", ["std", "logstd"])
@pytest.mark.parametrize("bits", [8, 5])
def test_mixtures(bits: int, base: str) -> None:
    arrays = arrays_of(GOLDEN / "components" / f"mol_{bits}bit_{base}.npz")
    beta, floor = float(arrays["output_gradient_smoothing_beta"]), float(arrays["min_mol_logscale"])
    n_mixtures = int(arrays["num_mixtures"])
    ours = arrays["logits_jax_order"][:, colour_last(n_mixtures, arrays["logits_jax_order"].shape[1])]
    likelihood = LogisticMixture.from_params(
        double(ours)[..., None, None], 3, n_mixtures, 2**bits, reference=True, bins="overlapping",
        scale=SmoothScale(base, beta), span=eight_bit_span(2**bits),  # type: ignore[arg-type]
        min_log_scale=floor * beta if base == "logstd" else floor,
    )  # fmt: skip
    x = (double(arrays["targets"]) + 1) / likelihood.span
    close(-likelihood.log_prob(x[..., None, None]), arrays["nll_nats"])


def test_gaussians_where_theirs_are_right() -> None:
    arrays = arrays_of(GOLDEN / "components" / "gaussian_kl.npz")
    for key in [key.removesuffix("_kl_true") for key in arrays if key.endswith("_kl_true")]:
        base, beta = key.split("_beta")
        scale = SmoothScale(base, float(beta))  # type: ignore[arg-type]

        def gaussian(n: str, key: str = key, scale: SmoothScale = scale) -> DiagonalGaussian:
            stored = double(arrays[f"{key}_{n}_scale"])
            log_std = stored.log() if scale.kind == "std" else scale.log(stored)
            return DiagonalGaussian(double(arrays[f"{key}_{n}_mean"]), log_std)

        close(gaussian("q").kl(gaussian("p")), arrays[f"{key}_kl_true"])
