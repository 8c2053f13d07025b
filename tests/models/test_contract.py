"""What every family owes the rest of the program, in a tiny size of each."""

from collections.abc import Callable
from typing import Any

import pytest
import small
import torch
from torch.testing import assert_close

from lvae_torch.distributions import DiagonalGaussian
from lvae_torch.elbo.bounds import elbo_terms
from lvae_torch.errors import CfgError
from lvae_torch.models.contract import Latent
from lvae_torch.models.families import FAMILIES
from lvae_torch.models.sources import (
    given_latents,
    given_noise,
    masked,
    posterior_mean,
    posterior_sample,
    prior_mean,
    prior_sample,
)

MIXTURE = {"likelihood": "discretized_logistic_mixture", "n_mixtures": 3}
VARIANTS: dict[str, Callable[[], Any]] = {
    "spatial_lvae": small.model,
    "spatial_lvae colour mixture": lambda: small.model((3, 9, 6), 256, **MIXTURE),
    "spatial_lvae grey mixture": lambda: small.model((1, 8, 8), 256, **MIXTURE),
    "spatial_lvae logistic": lambda: small.model((2, 8, 8), 32, likelihood="discretized_logistic"),
    "spatial_lvae gaussian": lambda: small.model((1, 8, 8), 256, likelihood="gaussian", max_log_std=3.0),
    "spatial_lvae plain": lambda: small.model(
        skip=False, gated=False, merge="linear", batch_norm=False, learn_top_prior=False, initial_halving=False
    ),
    "spatial_lvae orders": lambda: small.model(residual_type="cabdcabd", dropout=0.5, nonlinearity="selu"),
    "spatial_lvae one layer": lambda: small.model(z_channels=(2,), downsample=(1,), residual_type="bacdbac"),
    "ladder": lambda: small.dense("ladder"),
    "ladder narrow, unshared": lambda: small.dense("ladder", upward_input="mean", share_top_down=False),
    "ladder without batch norm": lambda: small.dense("ladder", batch_norm=False, nonlinearity="tanh"),
    "ladder gaussian": lambda: small.dense("ladder", (2, 8, 6), 256, likelihood="gaussian"),
    "ladder colour mixture": lambda: small.dense("ladder", (3, 4, 5), 256, **MIXTURE),
    "ladder one rung": lambda: small.dense("ladder", z_dims=(3,), widths=(6,)),
    "hierarchical_vae": lambda: small.dense("hierarchical_vae"),
    "hierarchical_vae without batch norm": lambda: small.dense("hierarchical_vae", batch_norm=False, leak=0.0),
    "hierarchical_vae gaussian": lambda: small.dense("hierarchical_vae", (2, 8, 6), 256, likelihood="gaussian"),
    "vae dense": lambda: small.one_latent("vae", network="dense", likelihood="bernoulli"),
    "vae points": lambda: small.one_latent("vae", (2, 1, 1), 0, network="dense", widths=(16, 9), likelihood="gaussian"),
    "vae squared errors": lambda: small.one_latent("vae", (3, 9, 6), 256),
    "vae fixed std": lambda: small.one_latent("vae", (3, 9, 6), 256, likelihood="gaussian", std=0.3),
    "vae learned std": lambda: small.one_latent("vae", (1, 8, 8), 256, likelihood="gaussian", std="learned"),
    "vae optimal std": lambda: small.one_latent("vae", (1, 8, 8), 256, likelihood="gaussian", std="optimal"),
    "vae logistic": lambda: small.one_latent("vae", (2, 8, 8), 32, likelihood="discretized_logistic"),
    "vlae": lambda: small.one_latent("vlae", (3, 8, 8), 256),
    "vlae points, free scales": lambda: small.one_latent(
        "vlae", (2, 1, 1), 0, network="dense", widths=(16, 9), likelihood="gaussian", bound_log_scale=False
    ),
    "vqvae": lambda: small.vqvae(),
    "vqvae moving averages, rotation": lambda: small.vqvae((1, 8, 8), codebook="ema", gradient="rotation"),
    "vqvae levels": lambda: small.vqvae((3, 8, 4), levels=(3, 4)),
    "vqvae mixture": lambda: small.vqvae((3, 4, 4), n_mixtures=2, likelihood="discretized_logistic_mixture"),
    "pixelcnn": lambda: small.pixelcnn(),
    "pixelcnn gated": lambda: small.pixelcnn((1, 4, 6), gated=True, dropout=0.3),
    "hierarchical_vae one rung": lambda: small.dense("hierarchical_vae", z_dims=(3,), widths=(6,)),
    "vdvae": small.residual,
    "vdvae grey, wide, 5 bits of 8": lambda: small.residual(
        (1, 8, 16), 256, likelihood_bits=5, bins="overlapping_closed", custom_width_str=""
    ),
    "vdvae binary": lambda: small.residual((1, 8, 8), 2, likelihood="bernoulli", no_bias_above=1),
    "efficient_vdvae": small.very_deep,
    "efficient_vdvae colour, residual": lambda: small.very_deep((3, 8, 12), 256, residual_posterior=True),
    "efficient_vdvae 5 bits, logstd": lambda: small.very_deep(
        (3, 8, 8), 32, latent_scale="logstd", latent_beta=0.4, output_scale="logstd", bins="overlapping"
    ),
    "efficient_vdvae grey, padded": lambda: small.very_deep((1, 9, 7), 256, pointwise_ends=False, kernels=2),
    "efficient_vdvae gaussian": lambda: small.very_deep((2, 8, 8), 256, likelihood="gaussian", stem_kernel=(3, 1)),
    "efficient_vdvae unlike towers": lambda: small.very_deep(
        cells=(2, 1, 1), inner_layers=0, down_widths=4, down_cells=(1, (2, 1), 1), down_kernels=3, down_inner_layers=1
    ),
}
variants = pytest.mark.parametrize("make", VARIANTS.values(), ids=VARIANTS)
B = 5


def x_for(model: Any) -> torch.Tensor:
    # two images: batch norm in training mode cannot do with one
    levels = 2 if type(model(None, prior_mean, n=2).likelihood).__name__ == "Bernoulli" else 32
    return small.images(B, model.image_shape, levels)


def has_closed_form(latent: Latent) -> bool:
    return type(latent.encoded) is type(latent.prior) is DiagonalGaussian


def test_every_family_has_a_variant_here() -> None:
    assert {name.split()[0] for name in VARIANTS} == set(FAMILIES)


@variants
def test_shapes(make: Callable[[], Any]) -> None:
    model = make().eval()
    x = x_for(model)
    out = model(x, posterior_sample)
    assert out.likelihood.log_prob(x).shape == (B,)
    for picture in (out.likelihood.mean(), out.likelihood.mode(), out.likelihood.sample()):
        assert picture.shape == x.shape
    assert tuple(latent.z.shape[1:] for latent in out.latents) == model.latent_shapes()
    for latent in out.latents:
        assert latent.kl.shape == latent.log_ratio.shape == (B,)
        assert (latent.kl >= 0).all() or not has_closed_form(latent)  # an estimate may be negative
        assert latent.prior.mean.shape == latent.encoded.mean.shape == latent.z.shape


@variants
def test_a_gradient_reaches_every_trainable_parameter(make: Callable[[], Any]) -> None:
    model = make().train()
    x = x_for(model)
    loss, terms = small.objective()(x, model(x, posterior_sample), step=0)
    assert terms.nelbo.isfinite().all()
    loss.backward()  # type: ignore[no-untyped-call]
    missing = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert missing == []


@variants
def test_encoded_latents_given_back_reproduce_the_likelihood(make: Callable[[], Any]) -> None:
    model = make().eval()
    x = x_for(model)
    out = model(x, posterior_sample)
    again = model(None, given_latents([latent.z for latent in out.latents]), n=B)
    assert_close(again.likelihood.log_prob(x), out.likelihood.log_prob(x), rtol=1e-5, atol=1e-4)
    for one, other in zip(out.latents, again.latents, strict=True):
        assert_close(one.prior.mean, other.prior.mean)
        assert other.posterior is None


@variants
def test_one_call_is_encode_then_decode(make: Callable[[], Any]) -> None:
    model = make().eval()
    x = x_for(model)
    noise = [torch.randn(B, *shape) for shape in model.latent_shapes()]
    whole = model(x, given_noise(noise))
    halves = model.decode(model.encode(x), given_noise(noise))
    assert_close(whole.likelihood.log_prob(x), halves.likelihood.log_prob(x))


@variants
def test_equal_seeds_give_equal_samples(make: Callable[[], Any]) -> None:
    model = make().eval()
    ones = prior_sample([1.0] * len(model.latent_shapes()))
    drawn = []
    for _ in range(2):
        torch.manual_seed(7)
        drawn.append(model(None, ones, n=3).likelihood.sample())
    assert torch.equal(*drawn)


@variants
def test_a_state_dict_goes_round(make: Callable[[], Any]) -> None:
    model, other = make().eval(), make().eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(model.state_dict())
    x = x_for(model)
    assert_close(model(x, posterior_mean).likelihood.mean(), other(x, posterior_mean).likelihood.mean())


@variants
def test_images_do_not_see_one_another(make: Callable[[], Any]) -> None:
    """In evaluation mode, an image's ELBO is the same alone and in a batch."""
    model = make().eval()
    x = x_for(model)
    noise = [torch.randn(B, *shape) for shape in model.latent_shapes()]
    together = elbo_terms(x, model(x, given_noise(noise))).nelbo
    alone = torch.cat(
        [
            elbo_terms(x[b : b + 1], model(x[b : b + 1], given_noise([e[b : b + 1] for e in noise]))).nelbo
            for b in range(B)
        ]
    )
    assert_close(together, alone, rtol=1e-5, atol=1e-4)


def test_masks_choose_between_posterior_and_prior() -> None:
    model = small.model().eval()
    x = small.images(B)
    shapes = model.latent_shapes()
    everything = [torch.ones(1, *shape, dtype=torch.bool) for shape in shapes]
    nothing = [torch.zeros(1, *shape, dtype=torch.bool) for shape in shapes]
    far = model(x + 0, given_noise([torch.zeros(B, *shape) for shape in shapes]))
    kept = model(x, masked(everything))
    pruned = model(x, masked(nothing))
    for i, latent in enumerate(kept.latents[:1]):
        spread = (latent.z - latent.encoded.mean).abs() / latent.encoded.std
        assert spread.max() < 6, i
        assert_close(latent.encoded.mean, far.latents[i].encoded.mean)
    top = pruned.latents[0]
    assert ((top.z - top.prior.mean).abs() / top.prior.std).max() < 6


def test_prior_temperature_scales_the_noise_of_its_layer() -> None:
    model = small.model().eval()
    cold = model(None, prior_sample([0.0, 0.0]), n=3)
    mean = model(None, prior_mean, n=3)
    assert_close(cold.likelihood.mean(), mean.likelihood.mean())
    torch.manual_seed(0)
    warm = model(None, prior_sample([0.5, 0.0]), n=3).latents[0]
    torch.manual_seed(0)
    hot = model(None, prior_sample([1.0, 0.0]), n=3).latents[0]
    assert_close(2 * (warm.z - warm.prior.mean), hot.z - hot.prior.mean)


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 9, 8\) given to a model built for \(1, 8, 8\)"):
        small.model()(small.images(2, (1, 9, 8)), posterior_sample)


def test_generating_needs_a_number() -> None:
    with pytest.raises(ValueError, match="say how many"):
        small.model()(None, prior_mean)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"z_channels": (1,) * 10, "downsample": (1,) * 10}, "shrinks images by 2048"),
        ({"likelihood": "bernoulli", "n_levels": 256}, "needs binary images"),
    ],
)
def test_an_impossible_architecture_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(CfgError, match=message):
        small.model((1, 28, 28), **section)


def test_activation_checkpointing_changes_neither_values_nor_gradients_nor_statistics() -> None:
    x = small.images(B)
    results = []
    for rematerialized in (False, True):
        model = small.model(dropout=0.3).train()
        if rematerialized:
            model.rematerialize()
        torch.manual_seed(3)
        elbo_terms(x, model(x, posterior_sample)).nelbo.mean().backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        results.append((gradients, {n: b.clone() for n, b in model.named_buffers()}))
    assert results[0][0].keys() == results[1][0].keys()
    for name, gradient in results[0][0].items():
        assert_close(gradient, results[1][0][name], msg=lambda m, n=name: f"{n}: {m}")
    for name, buffer in results[0][1].items():
        assert torch.equal(buffer, results[1][1][name]), name


def test_data_dependent_initialisation_scales_every_layer_to_the_data() -> None:
    """The golden test holds the numbers; here: outputs of std 0.1 on the very batch, whatever the data's scale."""
    model = small.model(data_dependent_init=True, max_log_std=1e-6)
    torch.manual_seed(0)
    model.initialize(small.images(64))
    with torch.no_grad():
        logits = model.train()(small.images(64), posterior_sample).likelihood.logits
    assert logits.std().item() == pytest.approx(0.1, rel=0.3)
    untouched = small.model(data_dependent_init=False)
    before = untouched.head.weight.clone()
    untouched.initialize(small.images(64))
    assert torch.equal(before, untouched.head.weight)
