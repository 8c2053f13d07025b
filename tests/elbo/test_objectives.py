"""Losses, bounds and counts against closed forms and Monte Carlo."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from torch import Tensor
from torch.testing import assert_close

from lvae_torch.distributions import DiagonalGaussian, GaussianLikelihood
from lvae_torch.elbo.bounds import bits_per_dim, elbo_terms, iw_bound, kl_of_layers, log_weight
from lvae_torch.elbo.objective import Objective, linear_warmup, logistic_warmup
from lvae_torch.elbo.units import UnitStatistics
from lvae_torch.models.contract import Latent, Output, Posterior, Prior, Source
from lvae_torch.models.sources import posterior_sample


@dataclass
class LinearGaussian:
    """z ~ N(0, 1), x | z ~ N(z, s^2) with a posterior of our choice: log p(x) = log N(x; 0, 1 + s^2) is known."""

    s: float = 0.5
    posterior_shift: float = 0.0
    image_shape = (1, 1, 1)
    encodings: int = 0

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        self.encodings += 1
        return (x,)

    def decode(self, features: tuple[Tensor, ...], source: Source, n: int | None = None) -> Output:
        x = features[0]
        gain = 1 / (1 + self.s**2)
        q = DiagonalGaussian(gain * x + self.posterior_shift, torch.full_like(x, math.log(self.s * math.sqrt(gain))))
        p = DiagonalGaussian(torch.zeros_like(x), torch.zeros_like(x))
        z = source(0, p, q)
        likelihood = GaussianLikelihood(DiagonalGaussian(z, torch.full_like(z, math.log(self.s))))
        return Output(likelihood, (Latent(z, p, q),))

    def __call__(self, x: Tensor, source: Source, n: int | None = None) -> Output:
        return self.decode(self.encode(x), source)

    def evidence(self, x: Tensor) -> Tensor:
        return torch.distributions.Normal(0.0, math.sqrt(1 + self.s**2)).log_prob(x).flatten(1).sum(dim=1)


X = torch.linspace(-2, 2, 5, dtype=torch.float64).view(5, 1, 1, 1)


def test_with_the_exact_posterior_every_weight_is_the_evidence() -> None:
    model: Any = LinearGaussian()
    out = model(X, posterior_sample)
    assert_close(log_weight(X, out), model.evidence(X))
    assert_close(iw_bound(model, X, iw_samples=3), model.evidence(X))


def test_the_bound_rises_with_k_towards_the_evidence() -> None:
    model: Any = LinearGaussian(posterior_shift=0.4)
    torch.manual_seed(0)
    means = [
        torch.stack([iw_bound(model, X, k, chunk=10_000) for _ in range(400 // k + 1)]).mean().item()
        for k in (1, 5, 50)
    ]
    evidence = model.evidence(X).mean().item()
    assert means[0] < means[1] < means[2] < evidence + 0.02
    assert means[2] == pytest.approx(evidence, abs=0.05)
    elbo = evidence - 0.4**2 / (2 * 0.5**2 / (1 + 0.5**2))  # evidence - KL(q || true posterior)
    assert means[0] == pytest.approx(elbo, abs=0.1)


def test_the_encoder_runs_once_however_many_samples_and_chunks() -> None:
    model: Any = LinearGaussian()
    iw_bound(model, X, iw_samples=23, chunk=10)
    assert model.encodings == 1


def test_the_settings_of_the_loss_reach_the_objective(tmp_path: Path) -> None:
    """A wrong one would train, only on something else."""
    chosen = {"mc_samples": 2, "iw_samples": 3, "kl_estimate": "sampled"}
    settings = small.settings(
        tmp_path, loss__beta=0.25, loss__free_bits=0.0, **{f"loss__{key}": value for key, value in chosen.items()}
    )
    objective = Objective(settings.loss, (1, 4, 4))
    assert {key: getattr(objective.loss, key) for key in chosen} == chosen
    assert objective.beta(7) == 0.25
    assert len(objective.repeated(torch.zeros(4, 1, 4, 4))) == 2 * 3 * 4


def test_chunks_share_out_the_same_samples() -> None:
    """The same noise in passes of 1, 2 or 7 samples gives the same bound."""
    noise = torch.randn(7, 5, 1, 1, 1, dtype=torch.float64)

    def fed() -> Source:
        used = 0

        def source(i: int, p: DiagonalGaussian, q: DiagonalGaussian | None) -> Tensor:
            nonlocal used
            assert q is not None
            k = q.mean.shape[0] // 5
            used += k
            return q.at_noise(noise[used - k : used].flatten(0, 1))

        return source

    model: Any = LinearGaussian(posterior_shift=0.3)
    bounds = [iw_bound(model, X, 7, chunk=chunk, source=fed()) for chunk in (5, 10, 35)]
    assert_close(bounds[0], bounds[1])
    assert_close(bounds[0], bounds[2])


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_no_pass_has_more_than_a_chunk_even_of_a_larger_batch(chunk: int) -> None:
    model: Any = LinearGaussian()
    sizes: list[int] = []

    def counting(i: int, p: Prior, q: Posterior | None) -> Tensor:
        z = posterior_sample(i, p, q)
        sizes.append(len(z))
        return z

    bound = iw_bound(model, X, iw_samples=4, chunk=chunk, source=counting)
    assert_close(bound, model.evidence(X))  # exact for this posterior, image by image and in their order
    assert max(sizes) <= chunk
    assert sum(sizes) == 4 * len(X)


@pytest.mark.parametrize(("k", "chunk"), [(0, 1), (1, 0)])
def test_senseless_sample_counts_are_refused(k: int, chunk: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        iw_bound(small.model(), small.images(2), k, chunk)


def test_analytic_kl_is_the_mean_of_the_sampled_one() -> None:
    model = small.model().eval()
    x = small.images(1).expand(4000, -1, -1, -1)
    torch.manual_seed(0)
    with torch.no_grad():
        out = model(x, posterior_sample)
    top = out.latents[0]
    error = top.log_ratio.std() / math.sqrt(4000)
    assert top.kl[0].item() == pytest.approx(top.log_ratio.mean().item(), abs=4 * error.item())


def terms_and_output() -> tuple[Tensor, Output]:
    model, x = small.model().eval(), small.images(4)
    torch.manual_seed(0)
    return x, model(x, posterior_sample)


def test_the_loss_without_tricks_is_the_negative_elbo() -> None:
    x, out = terms_and_output()
    loss, terms = small.objective()(x, out, 0)
    assert_close(loss, -out.likelihood.log_prob(x).mean() + sum(latent.kl.mean() for latent in out.latents))
    assert_close(loss, terms.nelbo.mean())


def test_beta_weighs_the_kl_and_n_dims_divides() -> None:
    x, out = terms_and_output()
    _, terms = small.objective()(x, out, 0)
    loss, _ = small.objective(64, beta=("linear", 10))(x, out, 5)
    assert_close(loss, (terms.nll.mean() + 0.5 * terms.kl.sum(1).mean()) / 64)


def test_free_bits_clamp_each_image_or_the_batch() -> None:
    kl = torch.tensor([[0.0, 4.0], [2.0, 4.0]])
    per_example = small.objective(free_bits=1.0).paid(kl)
    batch_mean = small.objective(free_bits=1.5, free_bits_mode="batch_mean").paid(kl)
    assert per_example.tolist() == [1.5, 4.0]
    assert batch_mean.tolist() == [1.5, 4.0]


def test_penalties_are_trained_on() -> None:
    x, out = terms_and_output()
    extra = Output(out.likelihood, out.latents, {"codebook": torch.full((4,), 3.0)})
    with_penalty, _ = small.objective()(x, extra, 0)
    without, _ = small.objective()(x, out, 0)
    assert_close(with_penalty - without, torch.tensor(3.0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("schedule", [linear_warmup(10), logistic_warmup(10)])
def test_warmups_rise_from_zero_to_one_and_stay(schedule: Callable[[int], float]) -> None:
    values = [schedule(step) for step in range(15)]
    assert values[0] == 0.0
    assert values == sorted(values)
    assert values[10:] == [pytest.approx(1.0)] * 5
    assert values[5] == pytest.approx(0.5)


def test_bits_per_dim() -> None:
    assert bits_per_dim(math.log(2) * 784, 784) == pytest.approx(1.0)


def test_active_units_are_those_whose_mean_moves() -> None:
    units = UnitStatistics([(3,)], torch.device("cpu"))
    means = torch.tensor([[0.0, 1.0, 0.05], [0.0, -1.0, -0.05], [0.0, 1.0, 0.05], [0.0, -1.0, -0.05]])
    for part in means.split(2):
        q = DiagonalGaussian(part, torch.zeros_like(part))
        p = DiagonalGaussian(torch.tensor([0.0, 0.0, 1.0]), torch.zeros(3))
        units.update((Latent(part, p, q),))
    result = units.result(lambda tensor: tensor)
    assert_close(result.variance[0], torch.tensor([0.0, 1.0, 0.0025], dtype=torch.float64))
    assert_close(result.kl[0], torch.tensor([0.0, 0.5, (0.95**2 + 1.05**2) / 4], dtype=torch.float64))
    assert result.active() == (1,)
    assert result.informative() == (2,)


def test_sampled_terms_sum_to_the_log_weight() -> None:
    x, out = terms_and_output()
    assert_close(-elbo_terms(x, out, "sampled").nelbo, log_weight(x, out))


@pytest.mark.parametrize("beta", [1.0, 0.25])
def test_the_importance_weighted_objective_is_its_definition(beta: float) -> None:
    objective = small.objective(beta=beta, mc_samples=2, iw_samples=3)
    x = objective.repeated(X)
    assert torch.equal(x.view(2, 3, 5, 1, 1, 1), X.expand(2, 3, 5, 1, 1, 1))
    torch.manual_seed(0)
    out = LinearGaussian(posterior_shift=0.4)(x, posterior_sample)
    loss, terms = objective(x, out, step=0)
    log_w = (out.likelihood.log_prob(x) - beta * out.latents[0].log_ratio).view(2, 3, 5)
    bounds = torch.log(torch.exp(log_w).mean(dim=1))  # (2, 5)
    assert_close(loss, -bounds.mean())
    assert_close(terms.nelbo, -log_weight(x, out))


def test_with_the_true_posterior_every_bound_is_the_evidence() -> None:
    for mc_samples, iw_samples in ((1, 1), (4, 1), (1, 5), (2, 3)):
        model = LinearGaussian()
        objective = small.objective(mc_samples=mc_samples, iw_samples=iw_samples,
                              kl_estimate="sampled")  # fmt: skip
        x = objective.repeated(X)
        loss, _ = objective(x, model(x, posterior_sample), step=0)
        assert_close(loss, -model.evidence(X).mean())


def test_more_importance_samples_give_a_smaller_loss() -> None:
    torch.manual_seed(0)
    x = X.repeat(4000, 1, 1, 1)
    losses = []
    for iw_samples in (1, 2, 8):
        objective = small.objective(iw_samples=iw_samples, kl_estimate="sampled")
        repeated = objective.repeated(x)
        losses.append(float(objective(repeated, LinearGaussian(posterior_shift=0.8)(repeated, posterior_sample), 0)[0]))
    evidence = -float(LinearGaussian().evidence(X).mean())
    assert losses[0] > losses[1] > losses[2] > evidence - 0.01


@pytest.mark.parametrize(
    "make",
    [
        *(small.model, small.very_deep, small.vqvae, lambda: small.one_latent("vlae")),
        *(lambda: small.dense("ladder"), lambda: small.dense("hierarchical_vae")),
    ],
)
def test_the_kl_of_all_layers_at_once_is_that_of_each(make: Callable[[], Any]) -> None:
    """Gaussians of several sizes, codes, a flow, and Gaussians that were drawn; values and gradients to the bit."""
    results = []
    for at_once in (False, True):
        model = make()
        torch.manual_seed(0)
        kl = torch.stack(kl_of_layers(model(small.images(3, model.image_shape), posterior_sample).latents, at_once))
        if kl.requires_grad:
            (kl * torch.arange(1, kl.numel() + 1).view_as(kl)).sum().backward()
        results.append([kl.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(results[0]) == len(results[1])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
