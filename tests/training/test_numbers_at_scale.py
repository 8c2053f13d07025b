"""Sums over as many numbers as the largest published models and images have, each compared with float64."""

import math
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import get_total_norm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lvae_torch.distributed import place
from lvae_torch.distributions.bernoulli import Bernoulli
from lvae_torch.distributions.gaussian import DiagonalGaussian
from lvae_torch.elbo import batch_norm
from lvae_torch.elbo.bounds import bits_per_dim
from lvae_torch.elbo.units import UnitStatistics
from lvae_torch.models.contract import Latent
from lvae_torch.training.step import PIECE, SHORT, gradient_norm

LARGEST_MODEL = 209_000_000
"""Weights of the largest published Efficient-VDVAE."""
LARGEST_IMAGE = (1, 3, 1024, 1024)


def drawn(n: int, scale: float = 1.0) -> torch.Tensor:
    return torch.empty(n).normal_(0, scale, generator=torch.Generator().manual_seed(0))


def exact_norm(vector: torch.Tensor) -> float:
    return math.sqrt(sum(float(piece.double().square().sum()) for piece in vector.split(PIECE)))


@pytest.mark.slow
@pytest.mark.parametrize("n", [57_000_000, LARGEST_MODEL])
def test_the_gradient_norm_of_the_largest_models(n: int) -> None:
    vector = drawn(n, 0.01)
    assert float(gradient_norm(vector)) == pytest.approx(exact_norm(vector), rel=1e-5)


@pytest.mark.parametrize("n", [SHORT - 1, SHORT + 1, 5 * SHORT + 3])
def test_the_gradient_norm(n: int) -> None:
    vector = drawn(n)
    vector[::7] *= 1e-3
    assert float(gradient_norm(vector)) == pytest.approx(exact_norm(vector), rel=1e-5)


@pytest.mark.parametrize("n", [1, 4293, SHORT])
def test_the_norm_of_a_short_gradient_has_the_bits_it_had(n: int) -> None:
    vector = drawn(n)
    assert torch.equal(gradient_norm(vector), get_total_norm([vector]))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_norm_that_is_none_stays_none(value: float) -> None:
    vector = drawn(SHORT + 9)
    vector[-1] = value
    assert not gradient_norm(vector).isfinite()


class NoFloat64(TorchDispatchMode):
    """Refuses what Apple's GPUs refuse, on another device than the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, torch.Tensor) and made.device.type != "cpu" and made.dtype == torch.float64:
                raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support it.")
        return out


def test_apples_gpus_are_asked_for_no_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without data stand in; a CUDA device for the statistics, for PyTorch here copies nothing to MPS."""
    with FakeTensorMode(), NoFloat64():
        assert gradient_norm(torch.empty(SHORT + 1, device="mps")).dtype == torch.float32
    for module in (batch_norm, place):
        monkeypatch.setattr(module, "float64_device", lambda device: torch.device("cpu"))
    with FakeTensorMode(), NoFloat64():
        norm = torch.nn.BatchNorm2d(3, device="cuda").eval()
        batch_norm.estimate(norm, [lambda: None])
        assert norm.running_mean is not None and norm.running_mean.device.type == "cuda"


@pytest.mark.slow
def test_the_average_of_the_largest_model() -> None:
    """What ``Ema.update`` does to a weight, a thousand times, against float64."""
    mine, its = drawn(1000), drawn(1000, 2.0)
    exact, weight = mine.double(), 1 - 0.9999
    for _ in range(1000):
        mine.lerp_(its, weight)
        exact.lerp_(its.double(), weight)
    assert (mine - exact).abs().max() < 2e-4 * exact.abs().max()


def test_bits_of_the_largest_images() -> None:
    x = (drawn(math.prod(LARGEST_IMAGE)) > 0).float().view(LARGEST_IMAGE)
    logits = drawn(math.prod(LARGEST_IMAGE)).view(LARGEST_IMAGE)
    nats = float(-Bernoulli(logits).log_prob(x))
    wide = logits.double()
    exact = float((torch.nn.functional.softplus(wide) - wide * x.double()).sum())
    assert bits_per_dim(nats, x.numel()) == pytest.approx(exact / x.numel() / math.log(2), rel=1e-6)


def test_the_kl_of_the_largest_latents() -> None:
    shape = (1, 16, 256, 256)
    q, p = (DiagonalGaussian(drawn(2**20).view(shape), 0.1 * drawn(2**20).view(shape) + k) for k in (0.0, 0.1))
    wide = [DiagonalGaussian(g.mean.double(), g.log_std.double()) for g in (q, p)]
    exact = float(wide[0].kl(wide[1]).sum())
    assert float(Latent(q.mean, p, q).kl) == pytest.approx(exact, rel=1e-5)


def test_statistics_over_many_images() -> None:
    """Means of 2,000 batches of 50 images, far from zero: a sum in float32 would lose the variance."""
    statistics = UnitStatistics([(2,)], torch.device("cpu"))
    q = DiagonalGaussian(1000 + torch.tensor([[-0.5, 0.1]] * 25 + [[0.5, 0.1]] * 25), torch.zeros(50, 2))
    latent = Latent(q.mean, DiagonalGaussian(q.mean, torch.zeros(50, 2)), q)
    for _ in range(2000):
        statistics.update((latent,))
    assert statistics.result(lambda total: total).variance[0].tolist() == pytest.approx([0.25, 0.0], abs=1e-4)
