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
from lvae_torch.errors import CfgError, DataError
from lvae_torch.hparams import load_text
from lvae_torch.interop.efficient_vdvae import neutral_names, section_from_reference
from lvae_torch.models.efficient_vdvae.bottleneck import Bottleneck, SameConv2d
from lvae_torch.models.efficient_vdvae.model import EfficientVDVAE, Style
from lvae_torch.models.efficient_vdvae.section import EfficientVDVAESection
from lvae_torch.models.efficient_vdvae.stages import Cells, DownStage, UpStage
from lvae_torch.models.likelihoods.heads import likelihood_head
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


# What is refused

TEXT = "[run]\nname = a\n[data]\ndataset = a\n[model]\nfamily = efficient_vdvae\n"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("scales = (2, 4)", r"scales = \(2, 4\) must begin with 1"),
        ("scales = (1, 2, 3, 6, 12)", "each a larger multiple of the one before"),
        ("scales = (1, 2)", "bottom_up has 5 scales, scales 2"),
        ("scales = (1,)\nbottom_up = [[]]\ntop_down = [[1]]\nkernels = 3", "a list of at least one stage"),
        ("scales = (1, 2)\nbottom_up = ((1,), (1, 1))\ntop_down = ((1,), (1,))\nkernels = 3", "needs the skip of one"),
        ("widths = (1, 2, 3)", "widths has 3 entries, scales 5; give one value, or one per scale"),
        ("down_widths = (1, 2, 3)", "down_widths has 3 entries"),
        ("z_channels = (1, 2, 3, 4, (5, 6))", "z_channels lists 2 stages in entry 5, where the towers have 3"),
        ("top_down = ((0,), (1,))", "must be at least 1"),
        ("likelihood = mixture", "needs one of 'bernoulli'"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(values: str, message: str) -> None:
    with pytest.raises(CfgError, match=message):
        load_text(TEXT + values + "\n", "a.cfg")


@pytest.mark.parametrize(
    ("shape", "n_levels", "section", "message"),
    [
        ((1, 4, 4), 2, {"scales": (1, 2, 8)}, "scales end with 8, but the images are only 4x4"),
        ((1, 28, 28), 2, {"scales": (1, 2, 32), "padding": 1}, "makes 28x28 images 30x30, which .* 32, does not"),
        ((1, 8, 8), 256, {"likelihood": "bernoulli"}, "needs binary images"),
        ((3, 8, 8), 256, {"ratios": 0.05}, "up stage 0: ratio 0.05 of width 6 leaves no channel"),
    ],
)
def test_settings_that_do_not_fit_the_images_are_refused(
    shape: tuple[int, int, int], n_levels: int, section: dict[str, Any], message: str
) -> None:
    with pytest.raises(CfgError, match=message):
        small.very_deep(shape, n_levels, **section)


def test_stages_that_do_not_fit_are_all_named() -> None:
    cells = Cells()
    up = [UpStage(8, 8, cells, 1, 2), UpStage(8, 9, cells, 1, 1), UpStage(16, 16, cells, 1, 2)]
    down = [DownStage(16, 2, cells), DownStage(8, 2, cells), DownStage(8, 2, cells, 1, 4)]
    with pytest.raises(CfgError) as caught:
        EfficientVDVAE((1, 8, 8), up, down, Style(), likelihood_head("bernoulli", 1, 2))
    message = str(caught.value)
    for problem in (
        "up stage 2 pools by 2, but nothing follows that pooling",
        "up stage 0 pools by 2, its partner, down stage 2, unpools by 4",
        "up stage 1 has skip width 9, its partner, down stage 1, width 8",
        "up stages 1 and 2 have widths 8 and 16, with no pooling between",
        "down stages 0 and 1 have widths 16 and 8, with no unpooling between",
    ):
        assert problem in message


# The original's names

NAMES = {
    "bottom_up.input_conv.weight": "input_conv.weight",
    "top_down.output_conv.bias": "output_conv.bias",
    "top_down.trainable_h": "top_h",
    "bottom_up.levels_up.0.1.residual_block.2.convs.3.weight": "up.0.1.cell.2.conv.1.weight",
    "bottom_up.levels_up_downsample.0.residual_block.0.convs.7.bias": "up.0.2.cell.0.conv.3.bias",
    "bottom_up.levels_up_downsample.1.skip_projection.weight": "up.1.0.skip_proj.weight",
    "bottom_up.levels_up_downsample.1.pool.ops.0.weight": "up.1.0.pool.conv.weight",
    "top_down.levels_down_upsample.3.unpool.ops.0.bias": "down.3.0.unpool.conv.bias",
    "top_down.levels_down_upsample.3.unpool.scale_bias": "down.3.0.unpool.bias_map",
    "top_down.levels_down_upsample.3.prior_net.0.convs.1.weight": "down.3.0.prior_net.conv.0.weight",
    "top_down.levels_down.3.0.posterior_net.0.convs.5.weight": "down.3.1.post_net.conv.2.weight",
    "top_down.levels_down.3.4.prior_layer.projection.weight": "down.3.5.prior_proj.weight",
    "top_down.levels_down.3.4.posterior_layer.projection.bias": "down.3.5.post_proj.bias",
    "top_down.levels_down.3.4.z_projection.weight": "down.3.5.z_proj.weight",
    "top_down.levels_down.3.4.residual_block.0.convs.1.weight": "down.3.5.cell.0.conv.0.weight",
}


def test_names_of_the_original() -> None:
    assert neutral_names(NAMES, [2, 0]) == NAMES


def test_unknown_names_are_listed() -> None:
    with pytest.raises(DataError, match=r"module.x, top_down.y"):
        neutral_names([*NAMES, "module.x", "top_down.y"], [2, 0])


def test_neutral_names_are_our_own() -> None:
    ours = {name for name, _ in small.very_deep().named_parameters()}
    for neutral in ("input_conv.weight", "top_h", "up.0.1.skip_proj.weight", "down.1.0.unpool.bias_map"):
        assert neutral in ours


def test_lists_of_the_reference_that_do_not_fit_are_refused() -> None:
    from efficient_vdvae_cases import PUBLISHED

    published = PUBLISHED["cifar10_C1"]
    model, data, loss = published.model, published.data, published.loss
    for changes, message in (
        ({"up_filters": model["up_filters"][1:]}, "up_strides has 33 entries, but up_filters has 32 entries"),
        ({"up_strides": [*model["up_strides"][:-1], 2]}, "up stage 32 pools by 2, but nothing follows"),
        ({"up_skip_filters": [7] * 33}, "up stage 0 has skip width 7, its partner, down stage 32, width 48"),
    ):
        with pytest.raises(CfgError, match=message):
            section_from_reference({**model, **changes}, data, loss)
    with pytest.raises(CfgError, match="no key 'up_filters'"):
        section_from_reference({k: v for k, v in model.items() if k != "up_filters"}, data, loss)
    with pytest.raises(CfgError, match=r"shrink images by 32, which does not divide .* = 48"):
        section_from_reference(model, {**data, "target_res": 48}, loss)
