"""The fully-connected ladder and its bottom-up baseline against integrals, counts and what their settings promise."""

import math
from typing import Any

import pytest
import small
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lvae_torch.distributions import DiagonalGaussian
from lvae_torch.elbo.bounds import elbo_terms, iw_bound, log_weight
from lvae_torch.errors import CfgError
from lvae_torch.hparams import load_text
from lvae_torch.models.contract import Output
from lvae_torch.models.families import FAMILIES
from lvae_torch.models.sources import (
    given_latents,
    given_noise,
    masked,
    posterior_mean,
    posterior_sample,
    prior_mean,
    shared,
)

BOTH = pytest.mark.parametrize("family", ["ladder", "hierarchical_vae"])
N_DRAWS = 40_000


def scalar(family: str, **section: Any) -> Any:
    """Two rungs of one unit each, over two pixels: small enough to integrate. Float64, evaluation mode."""
    sizes = {"z_dims": (1, 1), "widths": (5, 4), "batch_norm": False, "nonlinearity": "tanh"}
    return small.dense(family, (1, 1, 2), **sizes, **section).double().eval()


X = torch.tensor([1.0, 0.0], dtype=torch.float64).view(1, 1, 1, 2)


def on_grid(model: Any, points: int = 401, reach: float = 9.0) -> tuple[Output, Tensor, float]:
    """The pass at every pair of latents on a grid, x repeated for each, and the area of a cell."""
    axis = torch.linspace(-reach, reach, points, dtype=torch.float64)
    z2, z1 = torch.meshgrid(axis, axis, indexing="ij")
    x = X.expand(points**2, 1, 1, 2)
    with torch.no_grad():
        out = model(x, given_latents([z2.reshape(-1, 1), z1.reshape(-1, 1)]))
    return out, x, (axis[1] - axis[0]).item() ** 2


def log_q(out: Output) -> Tensor:
    return sum((latent.encoded.log_prob(latent.z).sum(dim=1) for latent in out.latents), torch.zeros(1))


def log_p(out: Output) -> Tensor:
    return sum((latent.prior.log_prob(latent.z).sum(dim=1) for latent in out.latents), torch.zeros(1))


def within(samples: Tensor, expected: float) -> bool:
    error = samples.std().item() / math.sqrt(len(samples))
    return abs(samples.mean().item() - expected) < 5 * error + 1e-6


VARIANTS = [
    ("ladder", {}),
    ("ladder", {"upward_input": "mean", "share_top_down": False}),
    ("hierarchical_vae", {}),
]


@pytest.mark.parametrize(("family", "options"), VARIANTS)
def test_weights_and_kl_against_integrals(family: str, options: dict[str, Any]) -> None:
    """Importance weights average to p(x); the KL terms average to KL(q(z|x) || p(z)), whichever way they are taken."""
    model = scalar(family, **options)
    out, x, cell = on_grid(model)
    q, p = log_q(out), log_p(out)
    assert (q.exp().sum() * cell).item() == pytest.approx(1, abs=1e-5)
    assert (p.exp().sum() * cell).item() == pytest.approx(1, abs=1e-5)
    evidence = ((p + out.likelihood.log_prob(x)).exp().sum() * cell).item()
    kl = ((q.exp() * (q - p)).sum() * cell).item()
    reconstruction = ((q.exp() * out.likelihood.log_prob(x)).sum() * cell).item()

    torch.manual_seed(0)
    many = X.expand(N_DRAWS, 1, 1, 2)
    with torch.no_grad():
        drawn = model(many, posterior_sample)
        bound = iw_bound(model, X, N_DRAWS, chunk=N_DRAWS // 4)
    weights = log_weight(many, drawn).exp()
    assert within(weights, evidence)
    error = weights.std().item() / evidence / math.sqrt(N_DRAWS)
    assert bound.item() == pytest.approx(math.log(evidence), abs=5 * error)
    terms = elbo_terms(many, drawn)
    assert within(terms.kl.sum(dim=1), kl)
    assert within(elbo_terms(many, drawn, "sampled").kl.sum(dim=1), kl)
    assert within(-terms.nelbo, reconstruction - kl)


def test_below_the_top_the_bottom_up_kl_has_no_closed_form() -> None:
    """Why ``Drawn`` estimates it: the closed form is another number, also on average."""
    model = scalar("hierarchical_vae")
    torch.manual_seed(0)
    with torch.no_grad():
        _, bottom = model(X.expand(N_DRAWS, 1, 1, 2), posterior_sample).latents
    q, p = bottom.encoded, bottom.prior
    closed = DiagonalGaussian.kl(q, p).sum(dim=1)
    error = (closed - bottom.kl).std().item() / math.sqrt(N_DRAWS)
    assert abs(closed.mean().item() - bottom.kl.mean().item()) > 20 * error


def test_every_rung_of_the_baseline_is_inferred_from_the_draw_that_the_pass_went_on_with() -> None:
    model = small.dense("hierarchical_vae").eval()
    x = small.images(5)
    everything = [torch.ones(1, *shape, dtype=torch.bool) for shape in model.latent_shapes()]
    noise = [torch.randn(5, *shape) for shape in model.latent_shapes()]
    for source in (posterior_sample, posterior_mean, masked(everything), given_noise(noise), shared(posterior_sample)):
        latents = model(x, source).latents
        for i, above in enumerate(latents[:-1]):
            again = model.bottom_up[-1 - i](latents[i + 1].z)
            assert_close(above.encoded.mean, again.chunk(2, dim=1)[0])
        if source is posterior_mean:
            assert all(torch.equal(latent.z, latent.encoded.mean) for latent in latents)


@BOTH
def test_pruning_everything_leaves_the_prior(family: str) -> None:
    model = small.dense(family).eval()
    out = model(small.images(5), prior_mean)
    assert_close(out.likelihood.mean(), model(None, prior_mean, n=5).likelihood.mean())


def norms(model: Any) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]


@BOTH
def test_batch_norm_stands_behind_every_linear_map_but_that_of_x(family: str) -> None:
    model = small.dense(family)
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert len(norms(model)) == len(linear) - 1
    assert [layer.bias is None for layer in linear].count(False) == 1  # batch norm has the bias
    plain = small.dense(family, batch_norm=False)
    assert norms(plain) == []
    assert all(layer.bias is not None for layer in plain.modules() if isinstance(layer, nn.Linear))


@BOTH
def test_batch_norm_uses_the_batch_in_training_and_its_record_in_evaluation(family: str) -> None:
    model, x = small.dense(family), small.images(64)
    with torch.no_grad():
        hidden = []
        first = norms(model)[0]
        handle = first.register_forward_hook(lambda module, args, y: hidden.append((args[0], y.clone())))
        model.train()(x, posterior_sample)
        (y_in, y), mean = hidden[0], first.running_mean.clone()
        assert_close(y.mean(dim=0), first.bias, atol=1e-5, rtol=0)
        assert_close(mean, 0.05 * y_in.mean(dim=0), atol=1e-6, rtol=1e-4)
        model.eval()(x, posterior_sample)
        handle.remove()
    assert torch.equal(first.running_mean, mean)
    recorded = (hidden[1][0] - mean) / (first.running_var + first.eps).sqrt() * first.weight + first.bias
    assert_close(hidden[1][1], recorded, atol=1e-5, rtol=1e-5)


def built(family: str, **section: Any) -> Any:
    return FAMILIES[family](**section).build((1, 28, 28), 2)


@pytest.mark.parametrize(
    ("family", "section", "count"),
    [
        ("ladder", {}, 1_859_424),
        ("ladder", {"upward_input": "mean"}, 1_707_104),  # as many as the baseline: only the inference differs
        ("hierarchical_vae", {}, 1_707_104),
    ],
)
def test_the_papers_models_have_their_size(family: str, section: dict[str, Any], count: int) -> None:
    assert sum(parameter.numel() for parameter in built(family, **section).parameters()) == count


def test_variances_begin_at_softplus_one_without_batch_norm() -> None:
    model = built("ladder", batch_norm=False)
    head = model.up_heads[0][0]
    assert_close(head.bias, torch.cat([torch.zeros(64), torch.ones(64)]))


@BOTH
def test_activation_checkpointing_changes_neither_values_nor_gradients_nor_statistics(family: str) -> None:
    x, results = small.images(6), []
    for rematerialized in (False, True):
        model = small.dense(family).train()
        if rematerialized:
            model.rematerialize()
        torch.manual_seed(3)
        elbo_terms(x, model(x, posterior_sample)).nelbo.mean().backward()
        results.append({n: p.grad for n, p in model.named_parameters()} | dict(model.named_buffers()))
    for name, value in results[0].items():
        assert_close(value, results[1][name], msg=lambda m, n=name: f"{n}: {m}")


@BOTH
def test_half_precision_networks_keep_their_nats_wide(family: str) -> None:
    model, x = small.dense(family).eval(), small.images(5)
    with torch.autocast("cpu", torch.bfloat16):
        terms = elbo_terms(x, model(x, posterior_mean))
    assert terms.nelbo.dtype == torch.float32
    assert_close(terms.nelbo, elbo_terms(x, model(x, posterior_mean)).nelbo, rtol=0.05, atol=0.5)


@BOTH
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("z_dims = [64, 32]\nwidths = [512]", "z_dims has 2 entries and widths 1; give both one entry per rung"),
        ("z_dims = []\nwidths = []", "z_dims is empty"),
        ("z_dims = [64, 0]\nwidths = [512, 256]", r"z_dims .*must be at least 1 \(element 2\)"),
        ("z_dims = [64, 8]\nwidths = [512, 2.5]", r"widths .*needs a whole number \(element 2\)"),
    ],
)
def test_impossible_rungs_are_refused(family: str, values: str, message: str) -> None:
    text = f"[run]\nname = a\n[data]\ndataset = a\n[model]\nfamily = {family}\n{values}\n"
    with pytest.raises(CfgError, match=message):
        load_text(text, "a.cfg")


@BOTH
def test_grey_images_need_another_likelihood(family: str) -> None:
    with pytest.raises(CfgError, match="needs binary images"):
        small.dense(family, n_levels=256)


@BOTH
def test_images_of_another_size_and_generating_without_a_number_are_refused(family: str) -> None:
    model = small.dense(family)
    with pytest.raises(ValueError, match=r"\(1, 9, 8\) given to a model built for \(1, 8, 8\)"):
        model(small.images(2, (1, 9, 8)), posterior_sample)
    with pytest.raises(ValueError, match="say how many"):
        model(None, prior_mean)
