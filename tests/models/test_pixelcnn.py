"""PixelCNN: what its masks let it see, drawing as the training pass position by position, exact likelihoods."""

import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lvae_torch.distributions.categorical import Categorical, codes_of
from lvae_torch.elbo.bounds import elbo_terms, iw_bound
from lvae_torch.errors import CfgError
from lvae_torch.models.families import FAMILIES
from lvae_torch.models.pixelcnn.causal import MaskedConv2d, Own, horizontal_mask, raster_mask, vertical_mask
from lvae_torch.models.pixelcnn.networks import GatedNetwork, PlainNetwork
from lvae_torch.models.sources import posterior_sample, prior_sample

K = 5
SMALL = {"width": 6, "layers": 2, "embedding": 3, "out_width": 7}


def pixelcnn(image_shape: tuple[int, int, int] = (1, 4, 5), n_levels: int = K, **section: Any) -> Any:
    """A small model in float64, with seeded weights large enough to matter."""
    torch.manual_seed(0)
    family = FAMILIES["pixelcnn"]
    model = family(**{**SMALL, **section}).build(image_shape, n_levels).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def some_x(n: int, shape: tuple[int, int, int] = (1, 4, 5), n_levels: int = K) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, n_levels, (n, *shape), generator=generator).double() / (n_levels - 1)


BOTH = pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "golden" / "misc" / "pixelcnn_masks.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("k", [3, 5, 7])
def test_masks(golden: dict[str, np.ndarray], k: int) -> None:
    def whole(mask: Tensor) -> np.ndarray:
        """With the rows below the own one, which our kernels do not even have."""
        return np.concatenate([mask.numpy(), np.zeros((k - len(mask), k), dtype=bool)])

    owns: tuple[Own, ...] = ("A", "B")
    for own in owns:
        assert np.array_equal(whole(raster_mask(k, own)), golden[f"mask_{own}_{k}"])
        assert np.array_equal(horizontal_mask(k, own).numpy(), golden[f"hmask_{own}_{k}"])
    assert np.array_equal(whole(vertical_mask(k)), golden[f"vmask_B_{k}"])


NETWORKS = {
    "rf_plain_A7_B3_x1": lambda: PlainNetwork(2, 4, 1, 3),
    "rf_plain_A7_B3_x3": lambda: PlainNetwork(2, 4, 3, 3),
    "rf_plain_A3_B3_x2": lambda: PlainNetwork(2, 4, 2, 3, first_kernel=3),
    "rf_plain_A3_B3_x9": lambda: PlainNetwork(2, 4, 9, 3, first_kernel=3),
    "rf_gated_k3_x1": lambda: GatedNetwork(2, 4, 1, 3, kernel=3),
    "rf_gated_k3_x2": lambda: GatedNetwork(2, 4, 2, 3, kernel=3),
    "rf_gated_k3_x9": lambda: GatedNetwork(2, 4, 9, 3, kernel=3),
    "rf_gated_k7_x2": lambda: GatedNetwork(2, 4, 2, 3, kernel=7),
    "rf_gated_k7_x3": lambda: GatedNetwork(2, 4, 3, 3, kernel=7),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_receptive_fields(golden: dict[str, np.ndarray], name: str) -> None:
    """Where the gradient of a position's logits is not zero: exactly the recorded positions."""
    torch.manual_seed(0)
    seen = receptive_field(NETWORKS[name]().double())
    assert np.array_equal(seen, golden[name])
    assert not (seen & ~golden["strict_causal"]).any()


def receptive_field(network: nn.Module) -> np.ndarray:
    """[i, j, a, b]: whether the logits at (i, j) react to the input at (a, b), on an 8x8 grid."""
    embedded = torch.randn(1, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    logits = network(embedded).square().sum(dim=(0, 1))
    seen = np.zeros((8, 8, 8, 8), dtype=bool)
    for i, j in product(range(8), range(8)):
        (gradient,) = torch.autograd.grad(logits[i, j], embedded, retain_graph=True)
        seen[i, j] = (gradient[0] != 0).any(dim=0).numpy()
    return seen


def test_deep_gated_layers_see_everything_before(golden: dict[str, np.ndarray]) -> None:
    torch.manual_seed(0)
    assert np.array_equal(receptive_field(GatedNetwork(2, 4, 4, 3, kernel=7).double()), golden["strict_causal"])


@BOTH
def test_a_later_code_never_changes_an_earlier_logit(gated: bool) -> None:
    model = pixelcnn(gated=gated)
    x = some_x(3)
    before = model(x, posterior_sample).likelihood.logits
    for place in range(20):
        changed = x.flatten(1).clone()
        changed[:, place] = (codes_of(changed[:, place], K) + 1) % K / (K - 1)
        after = model(changed.view_as(x), posterior_sample).likelihood.logits
        same = (before == after).all(dim=(0, 1, 2))
        assert same.flatten()[: place + 1].all(), place
        assert place == 19 or not same.flatten()[place + 1 :].all(), place


def naive_draw(model: Any, u: Tensor, temperature: float) -> Tensor:
    """A whole pass for each position."""
    x = torch.zeros_like(u)
    for i, j in product(range(u.shape[2]), range(u.shape[3])):
        with torch.no_grad():
            x[:, :, i, j] = model(x, posterior_sample).likelihood.sample(u, temperature)[:, :, i, j]
    return x


@BOTH
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_fast_drawing_is_naive_drawing(gated: bool, temperature: float) -> None:
    model = pixelcnn((1, 6, 7), gated=gated, layers=3)
    u = torch.rand(9, 1, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    fast = model(None, prior_sample([]), n=9).likelihood.sample(u, temperature)
    assert torch.equal(fast, naive_draw(model, u, temperature))
    assert torch.equal(fast, codes_of(fast, K) / (K - 1))
    assert all(m.memory is None for m in model.modules() if isinstance(m, MaskedConv2d))


@BOTH
def test_each_position_is_computed_once(gated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, computed = pixelcnn((1, 8, 8), gated=gated), []
    forward = MaskedConv2d.forward

    def counted(self: MaskedConv2d, x: Tensor) -> Tensor:
        computed.append((id(self), x.shape[-1]))
        return forward(self, x)

    monkeypatch.setattr(MaskedConv2d, "forward", counted)
    model.draw(2)
    for convolution in {which for which, _ in computed}:
        assert sum(n for which, n in computed if which == convolution) == 64


@BOTH
def test_probabilities_of_all_images_sum_to_one(gated: bool) -> None:
    model = pixelcnn((1, 2, 2), n_levels=3, gated=gated)
    every = torch.tensor(list(product(range(3), repeat=4)), dtype=torch.float64).view(-1, 1, 2, 2) / 2
    out = model(every, posterior_sample)
    assert out.likelihood.log_prob(every).exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert_close(model(None, prior_sample([]), n=1).likelihood.log_prob(every), out.likelihood.log_prob(every))


@BOTH
def test_draws_are_as_frequent_as_they_are_probable(gated: bool) -> None:
    model, n = pixelcnn((1, 1, 2), n_levels=3, gated=gated), 20_000
    torch.manual_seed(0)
    codes = codes_of(model(None, prior_sample([]), n=n).likelihood.sample(), 3).flatten(1)
    frequency = torch.bincount(3 * codes[:, 0] + codes[:, 1], minlength=9) / n
    every = torch.tensor(list(product(range(3), repeat=2)), dtype=torch.float64).view(-1, 1, 1, 2) / 2
    probability = model(every, posterior_sample).likelihood.log_prob(every).exp()
    assert_close(frequency.double(), probability.detach(), rtol=0, atol=4 * math.sqrt(0.25 / n))


def test_without_latents_the_bound_is_exact() -> None:
    model, x = pixelcnn(), some_x(4)
    terms = elbo_terms(x, model(x, posterior_sample))
    assert terms.kl.shape == (4, 0)
    assert_close(terms.nelbo, terms.nll)
    assert_close(iw_bound(model, x, iw_samples=3), -terms.nll.double())


def test_a_categorical_against_torchs() -> None:
    torch.manual_seed(0)
    params = torch.randn(3, 2 * K, 4, 4, dtype=torch.float64)
    ours, x = Categorical.from_params(params, K), some_x(3, (2, 4, 4))
    theirs = torch.distributions.Categorical(logits=params.view(3, K, 2, 4, 4).movedim(1, -1))
    codes = (x * (K - 1)).round()
    assert_close(ours.log_prob(x), theirs.log_prob(codes).flatten(1).sum(dim=1))
    assert_close(ours.mean(), (theirs.probs * torch.arange(K)).sum(-1) / (K - 1))
    assert torch.equal(codes_of(ours.mode(), K), theirs.probs.argmax(-1))


def test_categorical_draws() -> None:
    logits = torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64).log().view(1, 3, 1, 1, 1)
    u = torch.tensor([0.05, 0.11, 0.29, 0.31, 0.999], dtype=torch.float64).view(5, 1, 1, 1)
    drawn = Categorical(logits.expand(5, -1, -1, -1, -1)).sample(u)
    assert drawn.flatten().tolist() == [0, 0.5, 0.5, 1, 1]
    cold = Categorical(logits.expand(5, -1, -1, -1, -1)).sample(u, temperature=0.01)
    assert cold.flatten().tolist() == [1] * 5


@pytest.mark.parametrize("n_levels", [2, 128, 257, 65536])
def test_levels_come_back_as_codes(n_levels: int) -> None:
    codes = torch.arange(n_levels)
    assert torch.equal(codes_of(codes.float() / (n_levels - 1), n_levels), codes)


@pytest.mark.parametrize(
    ("image_shape", "n_levels", "section", "message"),
    [((3, 8, 8), 256, {}, "3 channels and 256 levels"), ((1, 8, 8), 0, {}, "1 channels and no levels")],
)
def test_what_it_cannot_model_is_refused(
    image_shape: tuple[int, int, int], n_levels: int, section: dict[str, Any], message: str
) -> None:
    with pytest.raises(CfgError, match=message):
        pixelcnn(image_shape, n_levels, **section)


@pytest.mark.parametrize("section", [{"kernel": 4}, {"gated": True, "first_kernel": 5}])
def test_settings_that_make_no_sense_are_refused(section: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"odd number|leave it out"):
        pixelcnn(**section)


@BOTH
def test_activation_checkpointing_changes_no_gradient(gated: bool) -> None:
    gradients = []
    for rematerialized in (False, True):
        model = pixelcnn(gated=gated, dropout=0.5).train()
        if rematerialized:
            model.rematerialize()
        torch.manual_seed(3)
        elbo_terms(some_x(3), model(some_x(3), posterior_sample)).nelbo.mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert_close(one, other)
