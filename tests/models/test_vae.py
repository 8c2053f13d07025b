"""The VAE of one latent vector and its likelihoods: closed forms, integrals, counts, and what its settings promise."""

import math
from typing import Any

import pytest
import small
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lvae_torch.distributions import DiagonalGaussian, GaussianLikelihood, SquaredError
from lvae_torch.elbo.bounds import elbo_terms, iw_bound
from lvae_torch.errors import CfgError
from lvae_torch.hparams import load_text
from lvae_torch.models.families import FAMILIES
from lvae_torch.models.likelihoods.gaussian_scales import FixedScale, LearnedScale, OptimalScale
from lvae_torch.models.likelihoods.heads import Head, Options, likelihood_head
from lvae_torch.models.sources import posterior_mean, posterior_sample
from lvae_torch.models.vae.model import VAE

BOTH = pytest.mark.parametrize("family", ["vae", "vlae"])
IMAGE = (3, 32, 32)


def built(family: str, image_shape: tuple[int, int, int] = IMAGE, n_levels: int = 256, **section: Any) -> Any:
    entry = FAMILIES[family]
    return entry(**section).build(image_shape, n_levels)


def n_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# The model


def test_the_courses_image_model_has_its_size() -> None:
    assert n_parameters(built("vae")) == 981_411
    made = 16 * 512 + 512 + 512 * 512 + 512 + 512 * 32 + 32
    assert n_parameters(built("vlae")) == 981_411 + made


def test_the_courses_layers() -> None:
    model = built("vae")
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    layers = [module for module in model.modules() if isinstance(module, kinds)]
    sizes = [(m.in_features, m.out_features) if isinstance(m, nn.Linear) else tuple(m.weight.shape) for m in layers]
    assert sizes == [
        *((32, 3, 3, 3), (64, 32, 3, 3), (128, 64, 3, 3), (256, 128, 3, 3), (4096, 32)),
        *((16, 2048), (128, 128, 4, 4), (128, 64, 4, 4), (64, 32, 4, 4), (3, 32, 3, 3)),
    ]
    rectified = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    assert len(rectified) == len(layers) - 2  # all but the two that end the networks


def test_one_seed_gives_both_families_the_same_networks() -> None:
    models = []
    for family in ("vae", "vlae"):
        torch.manual_seed(3)
        models.append(built(family, (1, 8, 8), widths=[4, 6]))
    vae, vlae = models
    for name, tensor in vae.state_dict().items():
        assert torch.equal(tensor, vlae.state_dict()[name]), name


def test_pixels_are_seen_from_minus_one_to_one_and_points_as_they_are() -> None:
    seen: list[Tensor] = []
    for n_levels, shape in ((256, (1, 4, 4)), (0, (2, 1, 1))):
        likelihood = "recon_sse" if n_levels else "gaussian"
        model = built("vae", shape, n_levels, network="dense", widths=[5], likelihood=likelihood)
        first = next(module for module in model.encoder.modules() if isinstance(module, nn.Linear))
        first.register_forward_hook(lambda module, args, y: seen.append(args[0]))
        x = torch.rand(2, *shape)
        model(x, posterior_mean)
        assert_close(seen.pop(), (2 * x - 1 if n_levels else x).flatten(1))


def linear_gaussian() -> VAE:
    """p(z) = N(0, I), p(x|z) = N(Az + b, 0.5^2), q a little off; float64."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3, 4))
    decoder = nn.Sequential(nn.Linear(2, 3), nn.Unflatten(1, (3, 1, 1)))
    return VAE((3, 1, 1), 2, encoder, decoder, Head(3, FixedScale(0.5), in_bits=False)).double()


@torch.no_grad()
def test_the_bound_reaches_the_exact_evidence() -> None:
    """x ~ N(b, AA' + 0.25 I), whatever q."""
    model = linear_gaussian()
    x = torch.randn(4, 3, 1, 1, dtype=torch.float64)
    a, b = model.decoder[0].weight, model.decoder[0].bias
    exact = torch.distributions.MultivariateNormal(b, a @ a.T + 0.25 * torch.eye(3, dtype=torch.float64))
    evidence = exact.log_prob(x.flatten(1))
    torch.manual_seed(0)
    bound = iw_bound(model, x, 20_000, chunk=20_000)
    assert_close(bound, evidence, rtol=0, atol=0.03)
    few = iw_bound(model, x.repeat(2000, 1, 1, 1), 1, chunk=8000).view(2000, 4)
    error = few.std(dim=0) / math.sqrt(2000)
    assert (few.mean(dim=0) < evidence).all()  # the ELBO is a bound, and no more
    q = DiagonalGaussian.from_mean_and_log_std(model.encode(x)[0])
    closed = model(x, posterior_mean).likelihood.log_prob(x) - 0.5 * (a**2 * q.std[:, None] ** 2).sum(dim=(1, 2)) / 0.25
    closed = closed - q.kl(DiagonalGaussian(torch.zeros_like(q.mean), torch.zeros_like(q.mean))).sum(dim=1)
    assert ((few.mean(dim=0) - closed).abs() < 5 * error).all()


@BOTH
def test_activation_checkpointing_changes_neither_values_nor_gradients(family: str) -> None:
    x, results = small.images(6, (3, 9, 6), 256), []
    for rematerialized in (False, True):
        model = small.one_latent(family, (3, 9, 6), 256).train()
        if rematerialized:
            model.rematerialize()
        torch.manual_seed(3)
        elbo_terms(x, model(x, posterior_sample)).nelbo.mean().backward()
        results.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, value in results[0].items():
        assert_close(value, results[1][name], msg=lambda m, n=name: f"{n}: {m}")


@BOTH
def test_half_precision_networks_keep_their_nats_wide(family: str) -> None:
    model, x = small.one_latent(family, (3, 8, 8), 256).eval(), small.images(5, (3, 8, 8), 256)
    with torch.autocast("cpu", torch.bfloat16):
        terms = elbo_terms(x, model(x, posterior_mean))
    assert terms.nelbo.dtype == torch.float32
    assert_close(terms.nelbo, elbo_terms(x, model(x, posterior_mean)).nelbo, rtol=0.05, atol=0.5)


# Its likelihoods


def test_squared_errors_are_those_on_minus_one_to_one() -> None:
    location, x = torch.randn(4, 3, 2, 2).double(), torch.rand(4, 3, 2, 2).double()
    score = SquaredError.from_params(location)
    expected = torch.stack([((2 * x[b] - 1 - location[b]) ** 2).sum() for b in range(4)])
    assert_close(-score.log_prob(x), expected)
    # A Gaussian of variance 1/2 on [-1, 1], up to a constant.
    gaussian = DiagonalGaussian(location, torch.full_like(location, 0.5 * math.log(0.5)))
    gap = score.log_prob(x) - gaussian.log_prob(2 * x - 1).flatten(1).sum(dim=1)
    assert_close(gap, gap[:1].expand(4))
    eps = torch.randn(4, 3, 2, 2).double()
    assert_close(2 * score.sample(eps) - 1, gaussian.at_noise(eps))
    assert_close(score.mean(), ((location.clamp(-1, 1) + 1) / 2))


def test_a_fixed_std_is_that_of_the_library() -> None:
    params, x = torch.randn(5, 2, 3, 3).double(), torch.rand(5, 2, 3, 3).double()
    head = likelihood_head("gaussian", 2, 256, Options(std=0.3))
    assert head.n_params == 2
    expected = torch.distributions.Normal(params, 0.3).log_prob(x).flatten(1).sum(dim=1)
    assert_close(head.likelihood(params).log_prob(x), expected)


def test_a_learned_std_is_a_weight_of_the_model() -> None:
    model = small.one_latent("vae", (1, 8, 8), 256, likelihood="gaussian", std="learned")
    assert isinstance(model.likelihood, LearnedScale)
    model.likelihood.log_std.data.fill_(math.log(0.7))
    params, x = torch.randn(5, 1, 8, 8), torch.rand(5, 1, 8, 8)
    expected = torch.distributions.Normal(params, 0.7).log_prob(x).flatten(1).sum(dim=1)
    assert_close(model.likelihood(params).log_prob(x), expected)
    model.likelihood(params).log_prob(x).mean().backward()
    residual = ((x - params) ** 2).flatten(1).sum(dim=1) / 0.7**2 - 64
    assert_close(model.likelihood.log_std.grad, residual.mean())  # d/d log std of a Gaussian


def test_the_optimal_variance_is_the_batchs_mean_squared_error() -> None:
    scale = OptimalScale().double().train()
    params, x = torch.randn(5, 2, 3, 3).double().requires_grad_(), torch.rand(5, 2, 3, 3).double()
    n = x.numel()
    mse = ((x - params) ** 2).mean()
    log_prob = scale(params).log_prob(x)
    assert_close(log_prob.sum(), -0.5 * n * (math.log(2 * math.pi) + mse.log() + 1))
    for other in (0.9, 1.1):  # no other variance is likelier
        std = math.sqrt(other * mse.item())
        assert torch.distributions.Normal(params, std).log_prob(x).sum() < log_prob.sum()
    (gradient,) = torch.autograd.grad(log_prob.sum(), params)
    assert_close(gradient, ((x - params) / mse).detach())  # as if the variance were given: it is at its optimum


def test_a_trained_model_has_one_variance_the_mean_of_the_last_batches() -> None:
    scale = OptimalScale().train()
    errors = [0.5, 2.0, 3.0]
    for error in errors:
        scale(torch.zeros(2, 1, 4, 4)).log_prob(torch.full((2, 1, 4, 4), error))
    mean = sum(error**2 for error in errors) / 3
    assert scale.variance.item() == pytest.approx(mean)
    scale.eval()
    params, x = torch.randn(3, 1, 4, 4), torch.rand(3, 1, 4, 4)
    expected = torch.distributions.Normal(params, math.sqrt(mean)).log_prob(x).flatten(1).sum(dim=1)
    assert_close(scale(params).log_prob(x), expected)
    assert_close(scale(params).log_prob(x)[:1], scale(params[:1]).log_prob(x[:1]))
    assert scale.variance.item() == pytest.approx(mean), "evaluation changes nothing"
    torch.manual_seed(0)
    noise = torch.randn(3, 1, 4, 4)
    assert_close(scale(params).sample(noise), params + math.sqrt(mean) * noise)


def test_a_perfect_reconstruction_stays_finite() -> None:
    x = torch.zeros(2, 1, 2, 2, requires_grad=True)
    log_prob = OptimalScale().train()(x).log_prob(torch.zeros(2, 1, 2, 2)).sum()
    log_prob.backward()
    assert log_prob.isfinite() and x.grad is not None and x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("section", "levels", "has_bits"),
    [
        ({"likelihood": "recon_sse"}, 256, False),
        ({"likelihood": "gaussian"}, 256, False),
        ({"likelihood": "gaussian", "std": 1.0}, 256, False),
        ({"likelihood": "gaussian", "std": "optimal"}, 256, False),
        ({"likelihood": "discretized_logistic"}, 256, True),
        ({"likelihood": "discretized_logistic_mixture", "n_mixtures": 2}, 256, True),
        ({"likelihood": "bernoulli"}, 2, True),
    ],
)
def test_bits_per_dimension_are_of_levels_only(section: dict[str, Any], levels: int, has_bits: bool) -> None:
    model = small.one_latent("vae", (1, 8, 8), levels, **section)
    assert model.n_dims == (64 if has_bits else None)


def test_the_usual_gaussian_has_an_output_for_each_std() -> None:
    head = likelihood_head("gaussian", 2, 0)
    assert head.n_params == 4
    assert isinstance(head.likelihood(torch.zeros(1, 4, 1, 1)), GaussianLikelihood)


# Its settings


@BOTH
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("widths = []\nnetwork = dense", "widths is empty"),
        ("widths = [32]", "widths needs at least two entries for convolutional networks"),
        ("std = 0.5", "std = 0.5 is for likelihood = gaussian, not recon_sse"),
        ("likelihood = gaussian\nstd = -1", "std .*above 0"),
        ("likelihood = gaussian\nstd = learnt", "'per_output', 'learned' or 'optimal'"),
    ],
)
def test_impossible_settings_are_refused(family: str, values: str, message: str) -> None:
    text = f"[run]\nname = a\n[data]\ndataset = a\n[model]\nfamily = {family}\n{values}\n"
    with pytest.raises(CfgError, match=message):
        load_text(text, "a.cfg")


def test_a_prior_needs_layers() -> None:
    text = "[run]\nname = a\n[data]\ndataset = a\n[model]\nfamily = vlae\nprior_widths = []\n"
    with pytest.raises(CfgError, match="prior_widths is empty"):
        load_text(text, "a.cfg")


def test_points_need_a_density() -> None:
    with pytest.raises(CfgError, match="likelihood = recon_sse needs pixels in levels"):
        built("vae", (2, 1, 1), 0, network="dense", widths=[4])


@BOTH
def test_images_of_another_size_and_generating_without_a_number_are_refused(family: str) -> None:
    model = small.one_latent(family, (1, 8, 8), 256)
    with pytest.raises(ValueError, match=r"\(1, 9, 8\) given to a model built for \(1, 8, 8\)"):
        model(small.images(2, (1, 9, 8)), posterior_sample)
    with pytest.raises(ValueError, match="say how many"):
        model(None, posterior_mean)
