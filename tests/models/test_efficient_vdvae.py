"""Efficient-VDVAE: initial weights, what its settings promise and refuse, and the names of the original's weights."""

import math
from typing import Any

import pytest
import small
import torch
from torch import Tensor
from torch.testing import assert_close

from lvae_torch.distributions import SmoothScale
from lvae_torch.elbo.bounds import elbo_terms
from lvae_torch.models.efficient_vdvae.bottleneck import Bottleneck, SameConv2d
from lvae_torch.models.efficient_vdvae.model import EfficientVDVAE
from lvae_torch.models.efficient_vdvae.section import EfficientVDVAESection
from lvae_torch.models.sources import posterior_mean, posterior_sample, prior_mean

COLOUR = (3, 16, 8)
WIDE: dict[str, Any] = {
    "scales": (1, 4), "bottom_up": ((2,), (1,)), "top_down": ((1,), (3,)), "widths": (48, 64), "ratios": (0.5, 0.25),
    "kernels": (3, 1), "z_channels": 40,
}  # fmt: skip


def fresh(**section: Any) -> EfficientVDVAE:
    """With the weights that training begins with."""
    torch.manual_seed(0)
    return EfficientVDVAESection(**{**WIDE, **section}).build(COLOUR, 256)


# Initial weights


def assert_uniform(tensor: Tensor, bound: float) -> None:
    """Within the bound, and filling it."""
    assert tensor.abs().max() <= bound * (1 + 1e-6)
    assert tensor.abs().max() > 0.9 * bound
    assert tensor.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)


def glorot(conv: SameConv2d) -> float:
    out_channels, in_channels, *kernel = conv.weight.shape
    return math.sqrt(6 / (math.prod(kernel) * (in_channels + out_channels)))


@pytest.mark.parametrize("options", [{}, {"stable_init": False, "zero_prior_init": True}])
def test_initial_weights(options: dict[str, bool]) -> None:
    model = fresh(**options)
    shrink = math.sqrt(1 / 4)  # four latent layers
    in_trunk = shrink if options.get("stable_init", True) else 1.0
    convs = {name: module for name, module in model.named_modules() if isinstance(module, SameConv2d)}
    for name, conv in convs.items():
        block, _, number = name.rpartition(".conv.")
        is_cell = isinstance(model.get_submodule(block), Bottleneck) if number.isdecimal() else False
        if is_cell and number == "0":
            fan_in = conv.weight[0].numel()
            assert_uniform(conv.weight, 1 / math.sqrt(fan_in))
            assert 0 < conv.bias.abs().max() <= 1 / math.sqrt(fan_in)
            continue
        assert not conv.bias.any(), name
        factor = 1.0
        if is_cell and number == "3":
            factor = 1.0 if name.startswith("down") and ("prior_net" in name or "post_net" in name) else in_trunk
        if name.endswith("z_proj"):
            factor = shrink
        if options.get("zero_prior_init") and "prior_net.conv.3" in name:
            assert not conv.weight.any(), name
        else:
            assert_uniform(conv.weight, factor * glorot(conv))
    assert_uniform(model.top_h, math.sqrt(3 / model.top_h.numel()))
    assert not model.down[1][0].unpool.bias_map.any()


def test_a_zero_prior_is_standard_normal_whatever_is_above() -> None:
    model = fresh(zero_prior_init=True)
    with torch.no_grad():
        for latent in model(None, prior_mean, n=3).latents:
            assert_close(latent.prior.mean, torch.zeros_like(latent.z))
            assert_close(latent.prior.std, torch.ones_like(latent.z))


# What the model is made of


def test_every_layer_reads_the_skip_of_its_own_stage() -> None:
    model = small.very_deep().eval()
    features = model.encode(small.images(2))
    assert [tuple(f.shape[1:]) for f in features] == [(10, 2, 2), (8, 4, 4), (8, 4, 4), (6, 8, 8)]
    assert model.latent_shapes() == (*[(4, 2, 2)] * 2, (3, 4, 4), *[(2, 4, 4)] * 2, *[(2, 8, 8)] * 2)
    with torch.no_grad():
        whole = model.decode(features, posterior_mean)
        for stage, first in ((3, 5), (2, 3), (1, 2), (0, 0)):
            changed = [f + 1.0 if k == stage else f for k, f in enumerate(features)]
            other = model.decode(tuple(changed), posterior_mean)
            for i, (one, two) in enumerate(zip(whole.latents, other.latents, strict=True)):
                if i < first:
                    assert torch.equal(one.encoded.mean, two.encoded.mean)
                elif i == first:
                    assert not torch.allclose(one.encoded.mean, two.encoded.mean)


def test_weights_that_decay_are_kernels_inside_blocks() -> None:
    model = small.very_deep()
    names = {parameter.data_ptr(): name for name, parameter in model.named_parameters()}
    decaying = {names[weight.data_ptr()] for weight in model.block_weights()}
    excluded = ("bias", "input_conv", "output_conv", "top_h", "proj")
    assert decaying == {name for name in names.values() if not any(word in name for word in excluded)}
    assert len(model.block_weights()) == len(decaying)


def test_binary_images_are_seen_as_they_are_and_others_on_the_axis_of_their_likelihood() -> None:
    assert small.very_deep().span is None
    assert small.very_deep(COLOUR, 256).span == 2.0
    assert small.very_deep(COLOUR, 32).span == pytest.approx(1.0 + 0.94509804)


@pytest.mark.parametrize("padding", [None, 2])
def test_zeros_around_the_image_are_seen_but_not_counted(padding: int | None) -> None:
    """28x28 in 32x32, as the original has MNIST; the likelihood is of the image, and of nothing else."""
    model = small.very_deep((1, 28, 28), scales=(1, 2, 32), padding=padding).eval()
    assert [shape[1:] for shape in model.latent_shapes()[::3]] == [(1, 1), (16, 16), (32, 32)]
    seen: list[Tensor] = []
    model.input_conv.register_forward_hook(lambda module, inputs, y: seen.append(inputs[0]))
    x = small.images(2, (1, 28, 28))
    out = model(x, posterior_mean)
    assert_close(seen[0][:, :, 2:30, 2:30], x)
    assert seen[0].sum() == x.sum()
    assert out.likelihood.mean().shape == x.shape
    assert_close(out.likelihood.log_prob(x), _bernoulli(out.likelihood.mean(), x))


def _bernoulli(p: Tensor, x: Tensor) -> Tensor:
    return torch.distributions.Bernoulli(p).log_prob(x).sum(dim=(1, 2, 3))


def test_a_posterior_may_be_a_correction_of_its_prior() -> None:
    absolute, relative = (small.very_deep(residual_posterior=r).eval() for r in (False, True))
    x = small.images(3)
    one, two = (model(x, posterior_mean).latents[0] for model in (absolute, relative))
    assert_close(two.encoded.mean, two.prior.mean + one.encoded.mean)
    assert_close(two.encoded.std, two.prior.std * one.encoded.std)


@pytest.mark.parametrize("beta", [0.4, 1.0])
def test_scales(beta: float) -> None:
    raw = torch.linspace(-40, 40, 201, dtype=torch.float64)
    assert_close(SmoothScale("logstd", beta).log(raw), beta * raw)
    std = torch.log1p(torch.exp(beta * raw)) / beta
    assert_close(SmoothScale("std", beta).log(raw).exp(), std, rtol=1e-7, atol=0)


def test_smoothing_by_log_two_begins_at_one() -> None:
    assert_close(SmoothScale("std", math.log(2)).log(torch.zeros(3)), torch.zeros(3), atol=1e-7, rtol=0)


def test_scales_are_finite_with_finite_slopes_everywhere() -> None:
    raw = torch.tensor([-1e4, -150.0, -30.0, 0.0, 30.0, 1e4], requires_grad=True)
    log = SmoothScale("std", 0.4).log(raw)
    (slope,) = torch.autograd.grad(log.sum(), raw)
    assert log.isfinite().all() and slope.isfinite().all() and (slope > 0).all()


# Tricks that change nothing


class Kept:
    """Counts what is kept for the backward pass."""

    numbers = 0

    def count(self, tensor: Tensor) -> Tensor:
        self.numbers += tensor.numel()
        return tensor


def test_activation_checkpointing_changes_neither_values_nor_gradients() -> None:
    x, results = small.images(4, COLOUR, 256), []
    for rematerialized in (False, True):
        model = small.very_deep(COLOUR, 256).train()
        if rematerialized:
            model.rematerialize()
        torch.manual_seed(3)
        kept = Kept()
        with torch.autograd.graph.saved_tensors_hooks(kept.count, lambda t: t):
            nelbo = elbo_terms(x, model(x, posterior_sample)).nelbo
        nelbo.mean().backward()
        results.append((nelbo, {name: p.grad for name, p in model.named_parameters()}, kept.numbers))
    assert_close(results[0][0], results[1][0])
    for name, gradient in results[0][1].items():
        assert_close(gradient, results[1][1][name], msg=lambda m, n=name: f"{n}: {m}")
    assert results[1][2] < 0.8 * results[0][2]


@pytest.mark.parametrize("rematerialized", [False, True])
def test_half_precision_networks_keep_their_nats_wide(rematerialized: bool) -> None:
    model, x = small.very_deep(COLOUR, 256).train(), small.images(4, COLOUR, 256)
    exact = elbo_terms(x, model(x, posterior_mean)).nelbo
    if rematerialized:
        model.rematerialize()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x, posterior_mean)
        nelbo = elbo_terms(x, out).nelbo
    assert nelbo.dtype == out.latents[0].z.dtype == torch.float32
    assert_close(nelbo, exact, rtol=0.05, atol=0.5)
    nelbo.mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
