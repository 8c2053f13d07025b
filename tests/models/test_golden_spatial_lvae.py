"""The spatial LVAE against numbers recorded from the original implementation, in float64."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import small
import torch
from golden_cases import ModelCase, double, fed_in_order, function_arrays, group, model_cases
from torch import Tensor, nn
from torch.testing import assert_close

from lvae_torch.distributions import DiagonalGaussian
from lvae_torch.elbo.bounds import elbo_terms, iw_bound
from lvae_torch.elbo.objective import linear_warmup
from lvae_torch.errors import DataError
from lvae_torch.interop.spatial_lvae import block_leaves, from_reference, merge_leaves, reference_tensors, tower_leaves
from lvae_torch.models.geometry import crop_to, pad_to, padded_size
from lvae_torch.models.sources import by_layer, given_noise, posterior_sample, prior_mean, shared
from lvae_torch.models.spatial_lvae.initialization import rescale_to_data
from lvae_torch.models.spatial_lvae.model import SpatialLVAE
from lvae_torch.models.spatial_lvae.residual import NONLINEARITIES, BlockStyle, Merge, ResidualBlock, residual_tower
from lvae_torch.training.flat import FlatParameters

CASES = model_cases()
cases = pytest.mark.parametrize("case", CASES, ids=[f"{c.name}-{'whole' if c.inspect else 'copy'}" for c in CASES])


def model_of(config: dict[str, Any], weights: dict[str, np.ndarray]) -> SpatialLVAE:
    """In float64, as recorded."""
    model = from_reference(config, weights)
    for name, tensor in reference_tensors(model):
        assert tensor.dtype == torch.float32, name
    return model.double()


def scalars_close(actual: Tensor, expected: np.ndarray, rtol: float = 1e-7) -> None:
    assert_close(actual.detach(), double(expected), rtol=rtol, atol=1e-9)


def maps_close(actual: Tensor, expected: np.ndarray) -> None:
    """Stored in float32: compared to 1e-6 of the largest value."""
    assert_close(actual.detach(), double(expected), rtol=0, atol=1e-6 * float(np.abs(expected).max()))


def uniforms(arrays: dict[str, np.ndarray], prefix: str = "") -> Any:
    """The noise that the likelihood's sample was drawn with."""
    if f"{prefix}eps_x" in arrays:
        return double(arrays[f"{prefix}eps_x"])
    u = [double(arrays[f"{prefix}u.{k}"]) for k in range(2) if f"{prefix}u.{k}" in arrays]
    return tuple(u) if len(u) > 1 else u[0]


@cases
def test_inference(case: ModelCase) -> None:
    model, x = model_of(case.config, case.weights), double(case.infer["x"])
    out = model(x, given_noise(case.top_down(case.infer, "eps")))
    bottom_up = out.latents[::-1]
    for i, latent in enumerate(bottom_up):
        maps_close(latent.z, case.infer[f"z.{i}"])
        maps_close(latent.encoded.mean, case.infer[f"q_mu.{i}"])
    sampled = torch.stack([latent.log_ratio for latent in bottom_up], dim=1)
    analytic = torch.stack([latent.kl for latent in bottom_up], dim=1)
    scalars_close(sampled, case.infer["kl_mc"])
    scalars_close(analytic, case.infer["kl_analytic"])
    log_lik = out.likelihood.log_prob(x)
    scalars_close(log_lik, case.infer["log_lik"])
    kl = analytic if case.config["analytical_kl"] else sampled
    scalars_close(log_lik - kl.sum(dim=1), case.infer["elbo"])


@cases
def test_loss_with_free_bits(case: ModelCase) -> None:
    model, x = model_of(case.config, case.weights), double(case.infer["x"])
    out = model(x, given_noise(case.top_down(case.infer, "eps")))
    estimate = "analytic" if case.config["analytical_kl"] else "sampled"
    loss, _ = small.objective(free_bits=case.config["free_bits"], kl_estimate=estimate)(x, out, step=0)
    scalars_close(loss, case.infer["loss"])


@cases
def test_generation(case: ModelCase) -> None:
    model, noise = model_of(case.config, case.weights), case.top_down(case.prior, "eps")
    out = model(None, given_noise(noise), n=len(noise[0]))
    for i, latent in enumerate(out.latents[::-1]):
        scalars_close(latent.prior.log_prob(latent.z).flatten(1).sum(dim=1), case.prior[f"logp.{i}"])
    maps_close(out.likelihood.sample(uniforms(case.prior)), case.prior["out_sample"])


@pytest.mark.parametrize("case", [c for c in CASES if c.inspect], ids=lambda c: c.name)
def test_layer_inspection(case: ModelCase) -> None:
    """Above a layer one draw for the row, at the layer one per column, below it the prior mean."""
    model, top = model_of(case.config, case.weights), case.n_layers - 1
    for layer in range(case.n_layers):
        arrays = {key.removeprefix(f"layer{layer}/"): a for key, a in case.inspect.items()}
        noise = [
            double(arrays[f"eps.{top - i}"]) if f"eps.{top - i}" in arrays else torch.empty(0)
            for i in range(case.n_layers)
        ]
        draw, above = given_noise(noise), top - layer
        source = by_layer([shared(draw)] * above + [draw] + [prior_mean] * layer)
        out = model(None, source, n=len(noise[0]))
        for i, latent in enumerate(out.latents[::-1]):
            maps_close(latent.z, case.inspect[f"layer{layer}/z.{i}"])
        if case.config["likelihood"] != "discr_log_mix":
            expected = case.inspect[f"layer{layer}/out_sample"]
            maps_close(out.likelihood.sample(uniforms(case.inspect, f"layer{layer}/")), expected)


@cases
def test_shapes_and_size(case: ModelCase) -> None:
    model = model_of(case.config, case.weights)
    assert [list(shape) for shape in model.latent_shapes()[::-1]] == case.config["latent_shapes_CHW"]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == case.config["n_trainable"]


def test_four_training_steps() -> None:
    """Losses, gradient norms and weights of four Adamax steps with batch statistics."""
    arrays = function_arrays("train_4steps_bernoulli")
    config: Any = arrays["config"]
    model = model_of(config, group(arrays, "before")).train()
    flat = FlatParameters(model)
    optimizer = small.optimizer(flat)
    optimizer.param_groups[0]["lr"] = config["lr"]
    objective = small.objective(free_bits=config["free_bits"], kl_estimate="sampled")
    for step, expected in enumerate(arrays["trace_loss_elbo_recons_kl_gradnorm_l2"]):
        x = double(arrays[f"step{step}/x"])
        noise = [double(arrays[f"step{step}/eps.{i}"]) for i in (1, 0)]
        flat.gradient.zero_()
        loss, terms = objective(x, model(x, given_noise(noise)), step)
        loss.backward()  # type: ignore[no-untyped-call]
        actual = [loss, -terms.nelbo.mean(), terms.nll.mean(), terms.kl.sum(1).mean(), flat.gradient.norm()]
        scalars_close(torch.stack([value.detach() for value in actual]), expected[:5])
        optimizer.step()
    after = group(arrays, "after_step3")
    for name, tensor in reference_tensors(model):
        scalars_close(tensor, after[name])


def test_data_dependent_initialisation() -> None:
    arrays = function_arrays("data_dep_init_bernoulli")
    config: Any = arrays["config"]
    after = group(arrays, "after")
    model = from_reference(config, after).double()
    drawn = group(arrays, "drawn")
    with torch.no_grad():
        for name, tensor in reference_tensors(model):
            if name in drawn:
                tensor.copy_(double(drawn[name]))
            else:
                tensor.fill_(1.0 if ("norm" in name and name.endswith("weight")) or "running_var" in name else 0.0)
    x, noise = double(arrays["x"]), [double(arrays[f"eps.{i}"]) for i in (1, 0)]
    model.train()
    rescale_to_data(model, lambda: model(x, given_noise(noise)), config["init_scale"])
    for name, tensor in reference_tensors(model):
        assert_close(tensor.detach(), double(after[name]), rtol=1e-6, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


def test_importance_weighted_test_procedure() -> None:
    """Ten images, seven samples: every log weight, and the bound, over an uneven last batch."""
    arrays = function_arrays("test_procedure_bernoulli")
    config: Any = arrays["config"]
    model = model_of(config, group(arrays, "weights"))
    x, k = double(arrays["x"]), config["K"]
    log_weights = []
    for sample in range(k):
        out = model(x, given_noise([double(arrays[f"eps.{i}"][sample]) for i in (1, 0)]))
        terms = elbo_terms(x, out, "sampled")
        log_weights.append(-terms.nelbo)
    scalars_close(torch.stack(log_weights, dim=1), arrays["log_weights"], rtol=1e-8)

    # The same through the bound itself, four images at a time and three samples in one pass.
    bounds = []
    for first in range(0, len(x), config["test_batch_size"]):
        images = slice(first, first + config["test_batch_size"])
        n = len(x[images])
        noise = [double(arrays[f"eps.{i}"][:, images]) for i in (1, 0)]
        source = fed_in_order(noise, n)
        bounds.append(iw_bound(model, x[images], k, chunk=3 * n, source=source))
    expected = np.logaddexp.reduce(arrays["log_weights"], axis=1) - math.log(k)
    scalars_close(torch.cat(bounds), expected)
    assert_close(torch.cat(bounds).mean(), double(arrays["metric/elbo/elbo_IW_7"]), rtol=1e-5, atol=0)


BLOCKS = function_arrays("fn_blocks")


def recorded_block(name: str) -> tuple[nn.Module, Iterator[tuple[str, nn.Module]]]:
    """An untrained block of the kind that a prefix in ``fn_blocks`` names, and its leaves by neutral name."""
    if name.startswith("res_"):
        _, kind, norm, gate, activation = name.split("_")
        block = ResidualBlock(BlockStyle(4, activation, kind, norm == "bn1"), gated=gate == "gate1")
        return block, block_leaves("", block)
    style = BlockStyle(4)
    if name.startswith("resample"):
        tower = residual_tower(style, gated=True, blocks=1, halvings=1, up=name.endswith("top_down"))
        return tower, ((leaf.removeprefix("."), module) for leaf, module in tower_leaves("", tower))
    merge = Merge(style, linear=name == "merge_linear")
    return merge, merge_leaves("", merge)


@pytest.mark.parametrize("name", sorted({key.split("/")[0] for key in BLOCKS if "/" in key}))
def test_block(name: str) -> None:
    """Every kind of residual block, resampling and merge: both modes, and the running statistics after one pass."""
    arrays = group(BLOCKS, name)
    block, leaves = recorded_block(name)
    inputs = [double(BLOCKS[key]) for key in ("x", "y")][: 2 if name.startswith("merge") else 1]
    norms = []
    with torch.no_grad():
        for prefix, module in leaves:
            short = prefix.split(".")[-1]
            for key, tensor in module.state_dict(keep_vars=True).items():
                if key != "num_batches_tracked":
                    tensor.copy_(torch.from_numpy(arrays[f"{short}.{key}"]))
            norms += [(short.removeprefix("norm"), module)] if short.startswith("norm") else []
    block.double()
    scalars_close(block.eval()(*inputs), arrays["out_eval"], rtol=1e-9)
    scalars_close(block.train()(*inputs), arrays["out_train"], rtol=1e-9)
    for number, norm in norms:
        scalars_close(norm.running_mean, arrays[f"running_mean_after_train.{number}"], rtol=1e-9)
        scalars_close(norm.running_var, arrays[f"running_var_after_train.{number}"], rtol=1e-9)


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_nonlinearity(name: str) -> None:
    scalars_close(NONLINEARITIES[name]()(double(BLOCKS["act_in"])), BLOCKS[f"act_{name}"], rtol=1e-9)


def test_padding_and_cropping() -> None:
    arrays = function_arrays("fn_misc")
    for height, width, factor, padded_height, padded_width in arrays["padsize_H_W_factor_PH_PW"].tolist():
        assert padded_size((height, width), factor) == (padded_height, padded_width)
    padded = pad_to(double(arrays["pad_in"]), (8, 7))
    scalars_close(padded, arrays["pad_out_8x7"])
    scalars_close(crop_to(padded, (3, 4)), arrays["crop_out_3x4"])


def test_kl_free_bits_and_warmup() -> None:
    arrays = function_arrays("fn_misc")
    z, p, q = (
        double(arrays["kl_z"]),
        *(DiagonalGaussian.from_mean_and_log_var(double(arrays[f"kl_{name}_mu_logvar"])) for name in "pq"),
    )
    scalars_close(q.log_prob(z) - p.log_prob(z), arrays["kl_mc_elementwise"])
    scalars_close(q.kl(p), arrays["kl_analytic_elementwise"])
    kl = double(arrays["fb_kl"])
    for k, threshold in enumerate(arrays["fb_values"].tolist()):
        free_bits = threshold if threshold >= 1e-6 else 0.0
        for mode, expected in (("per_example", "fb_per_sample"), ("batch_mean", "fb_batch_average")):
            paid = small.objective(free_bits=free_bits, free_bits_mode=mode).paid(kl)
            scalars_close(paid, arrays[expected][k])
    beta = linear_warmup(10)
    np.testing.assert_allclose([beta(int(s)) for s in arrays["anneal_steps"]], arrays["anneal_beta_10"])


def test_weights_that_do_not_fit_are_all_named() -> None:
    case = CASES[0]
    weights = dict(case.weights)
    del weights["lik.conv.bias"]
    weights["extra"] = np.zeros(3)
    weights["first.conv.bias"] = np.zeros(99)
    with pytest.raises(DataError) as raised:
        from_reference(case.config, weights)
    message = str(raised.value)
    assert "lik.conv.bias: missing" in message
    assert "extra: this model has no such weight" in message
    assert "first.conv.bias: has shape (99,)" in message


def test_posterior_needs_an_image() -> None:
    model = model_of(CASES[0].config, CASES[0].weights)
    with pytest.raises(ValueError, match="given no image"):
        model(None, posterior_sample, n=2)
