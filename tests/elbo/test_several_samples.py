"""Several samples of an image in a step: it is encoded once, and the step is that of the image repeated."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import small
import torch
from steps import train_step
from torch import Tensor
from torch.testing import assert_close

from lvae_torch.models.layout import copies, is_channels_last
from lvae_torch.models.sources import posterior_sample
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.half_weights import HalfWeights

B = 4
X = torch.bernoulli(torch.full((B, *small.IMAGE_SHAPE), 0.4), generator=torch.Generator().manual_seed(0)).double()
Make = Callable[[], Any]
MODELS: dict[str, Make] = {
    "ladder": lambda: small.dense("ladder"),
    "hierarchical_vae": lambda: small.dense("hierarchical_vae"),
    "spatial_lvae": small.model,
    "spatial_lvae, channels last": lambda: small.model().to(memory_format=torch.channels_last),
    "efficient_vdvae": small.very_deep,
    "efficient_vdvae, channels last": lambda: small.very_deep().to(memory_format=torch.channels_last),
    "vlae": lambda: small.one_latent("vlae", likelihood="bernoulli"),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("mc_samples", "iw_samples"), [(2, 3), (3, 1)])
def test_a_step_is_that_of_repeated_images(
    name: str, mc_samples: int, iw_samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same noise, batch norm included: its statistics are those of a batch, however often that is repeated."""
    model = MODELS[name]().double().train()
    objective = small.objective(mc_samples=mc_samples, iw_samples=iw_samples, kl_estimate="sampled")
    loss, gradient = _of_repeated(deepcopy(model), objective)
    encoded: list[int] = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda x: encoded.append(len(x)) or encode(x))
    step = train_step(model, objective=objective)
    step._set_scalars(0)
    torch.manual_seed(0)
    ours, terms = step._backward((X, None), False)
    assert encoded == [B] and terms.nll.shape == (B * mc_samples * iw_samples,)
    assert_close(ours, loss)
    assert_close(step.flat.gradient, gradient)
    assert gradient.abs().max() > 0.01


def _of_repeated(model: Any, objective: Any) -> tuple[Tensor, Tensor]:
    """Loss and gradient, as they are defined."""
    flat, wide = FlatParameters(model), objective.repeated(X)
    assert torch.equal(wide.view(objective.samples, *X.shape), X.expand(objective.samples, *X.shape))
    torch.manual_seed(0)
    loss, _ = objective(wide, model(wide, posterior_sample), 0)
    loss.backward()
    return loss.detach(), flat.gradient.clone()


def test_half_weights_take_samples_too() -> None:
    model = small.model()
    half, seen = HalfWeights(model, FlatParameters(model)), []
    model.register_forward_hook(lambda module, given, out: seen.append(len(out.latents[0].z)))
    with torch.autocast("cpu", torch.bfloat16):
        half.refresh()
        out = half(model, X.float(), posterior_sample, 3)
    assert seen == [3 * B] and out.likelihood.log_prob(X.float().repeat(3, 1, 1, 1)).shape == (3 * B,)


def test_copies_are_in_the_layout_of_what_they_are_of() -> None:
    x = torch.arange(2 * 3 * 2 * 2).float().view(2, 3, 2, 2)
    for of in (x, x.contiguous(memory_format=torch.channels_last)):
        again = copies(of, 4)
        assert torch.equal(again, torch.cat([x] * 4)) and is_channels_last(again) == is_channels_last(of)
    assert copies(x, 1) is x
    assert copies(torch.tensor([5, 6]), 2).tolist() == [5, 6, 5, 6]
    assert copies(torch.tensor([[5, 6]]), 2).tolist() == [[5, 6], [5, 6]]
