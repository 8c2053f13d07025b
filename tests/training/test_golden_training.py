"""Schedules, balancing and optimizer steps of Efficient-VDVAE against recorded numbers, in float64."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import small
import torch
from golden_cases import arrays_of
from numpy.testing import assert_allclose
from torch import Tensor, nn

from lvae_torch.distributions import DiagonalGaussian
from lvae_torch.elbo.objective import linear_between, logistic_growth
from lvae_torch.models.contract import Latent, Output
from lvae_torch.training.ema import Ema
from lvae_torch.training.flat import FlatParameters

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "efficient_vdvae"


@pytest.fixture(scope="module")
def weights_of_terms() -> dict[str, np.ndarray]:
    return arrays_of(FOLDER / "beta_gamma.npz")


def test_beta_schedules(weights_of_terms: dict[str, np.ndarray]) -> None:
    arrays = weights_of_terms
    start, steps, minimum = (float(value) for value in arrays["linear_params"])
    # The original divides by start + steps, so its beta is 1 only at step 2 start + steps.
    for last, expected in ((2 * start + steps, "linear_reference"), (start + steps, "linear_textbook")):
        beta = linear_between(int(start), int(last), minimum)
        assert_allclose([beta(int(step)) for step in arrays["beta_steps"]], arrays[expected], rtol=1e-12)
    beta = logistic_growth(*(float(value) for value in arrays["logistic_params"]))
    assert_allclose([beta(int(step)) for step in arrays["beta_steps"]], arrays["logistic"], rtol=1e-12)


def test_logistic_growth_far_from_its_middle_does_not_overflow() -> None:
    beta = logistic_growth(10_000, 10.0)
    assert (beta(0), beta(10_000), beta(20_000)) == (0.0, 0.5, 1.0)


@pytest.mark.parametrize(("balance", "name"), [("kl_per_unit", "scaledTrue"), ("kl", "scaledFalse")])
def test_balanced_kl(weights_of_terms: dict[str, np.ndarray], balance: str, name: str) -> None:
    """Layers with the recorded numbers of units, whose posteriors have the recorded KL to a standard normal prior."""
    arrays = weights_of_terms
    dims, until = float(arrays["dims"]), int(arrays["gamma_max_steps"])
    latents = []
    for kl, units in zip(arrays["kl_layers_nats_per_dim"], arrays["latents_per_layer"], strict=True):
        mean = torch.full((2, int(units)), (2 * kl * dims / units) ** 0.5, dtype=torch.float64)  # KL = mean^2 / 2
        zero = torch.zeros_like(mean)
        latents.append(Latent(mean, DiagonalGaussian(zero, zero), DiagonalGaussian(mean, zero)))
    nothing: object = SimpleNamespace(log_prob=lambda x: torch.zeros(len(x), dtype=torch.float64))
    out = Output(nothing, tuple(latents))  # type: ignore[arg-type]
    objective = small.objective(int(dims), balance=balance, balance_steps=until)
    losses = [float(objective(torch.zeros(2, 1), out, step)[0]) for step in (0, until, until + 1)]
    assert_allclose(losses, arrays[f"gamma_kl_{name}_steps_0_100_101"], rtol=1e-10)


def test_learning_rates() -> None:
    arrays = arrays_of(FOLDER / "lr_schedules.npz")
    base, final, rate = (float(arrays[key]) for key in ("base_lr", "min_lr", "decay_rate"))
    warmup, start, steps = (int(arrays[key]) for key in ("warmup_steps", "decay_start", "decay_steps"))
    common = {"learning_rate": base, "total_steps": 10_000, "final_learning_rate": final}

    def curve(name: str, warmup_steps: int) -> np.ndarray:
        schedule = small.rate(
            name,
            **common,
            warmup_steps=warmup_steps,
            decay_start=start,
            decay_end=start + steps,
            decay_rate=rate,
            decay_steps=steps,
        )
        return np.array([schedule(int(step)) for step in arrays["step"]])

    exponential = curve("exponential", 0)
    assert_allclose(exponential, arrays["exponential_intended_no_warmup"], rtol=1e-12)
    for name, key in (("cosine", "cosine_intended"), ("constant", "constant")):
        assert_allclose(curve(name, warmup)[warmup:], arrays[key][warmup:], rtol=1e-12)
        # The original's first step has learning rate 0 (a step for nothing); ours begins where its second one is.
        assert_allclose(curve(name, warmup - 1)[: warmup - 1], arrays[key][1:warmup], rtol=1e-12)
        from_zero = small.rate(
            name, **common, warmup_steps=warmup, decay_start=start, decay_end=start + steps, warmup_from_zero=True
        )
        assert_allclose([from_zero(int(step)) for step in arrays["step"]], arrays[key], rtol=1e-12)
    chained = small.rate(
        "cosine_chained", **common, warmup_steps=warmup, decay_start=start, decay_end=steps, warmup_from_zero=True
    )
    assert_allclose([chained(int(step)) for step in arrays["step"]], arrays["cosine_reference_torch"], rtol=1e-9)
    noam = small.rate("noam", 10_000, learning_rate=base, warmup_steps=warmup)
    assert_allclose([noam(int(step)) for step in arrays["step"][warmup:]], arrays["noam"][warmup:], rtol=1e-12)


@pytest.mark.parametrize("tag", ["wd0", "wd0p01"])
def test_adamax_and_the_average_of_its_weights(tag: str) -> None:
    arrays = arrays_of(FOLDER / "adamax_ema.npz")
    beta1, beta2, eps, weight_decay = (float(value) for value in arrays[f"{tag}_hyper"])
    model = _Parameters([torch.from_numpy(arrays[f"{tag}_param{i}_init"]) for i in range(4)])
    flat = FlatParameters(model)
    ema = Ema(model, float(arrays[f"{tag}_ema_decay"]))
    optimizer = small.optimizer(flat, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay)
    far = 10_000_000  # where the average no longer forgets faster than its decay says
    for t, rate in enumerate(arrays[f"{tag}_lr"]):
        optimizer.param_groups[0]["lr"] = float(rate)
        for i, parameter in enumerate(model.tensors):
            assert parameter.grad is not None
            parameter.grad.copy_(torch.from_numpy(arrays[f"{tag}_grad_t{t}_param{i}"]))
        optimizer.step()
        ema.update(flat, flat.vector.new_tensor(ema.share_at(far)))
        for i, parameter in enumerate(model.tensors):
            assert_allclose(parameter.detach().numpy(), arrays[f"{tag}_param{i}_t{t}"], rtol=1e-12)
            assert_allclose(ema.model.tensors[i].detach().numpy(), arrays[f"{tag}_ema{i}_t{t}"], rtol=1e-12)


class _Parameters(nn.Module):
    def __init__(self, tensors: list[Tensor]) -> None:
        super().__init__()
        self.tensors = nn.ParameterList(nn.Parameter(tensor.clone()) for tensor in tensors)
