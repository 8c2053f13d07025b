"""All maps of a step, and their gradients, have one layout: channels-last."""

from typing import Any

import pytest
import small
import torch
from torch.testing import assert_close

from benchmarks.counts import counts_of_step, images
from lvae_torch.models.geometry import crop_to, pad_to
from lvae_torch.models.layout import keeps_layout, plus_map, repeated

GREY, COLOUR = (1, 10, 10), (3, 8, 8)


def spatial(shape: tuple[int, int, int], n_levels: int) -> Any:
    likelihood = "bernoulli" if n_levels == 2 else "discretized_logistic_mixture"
    return small.model(shape, n_levels, batch_norm=True, dropout=0.2, likelihood=likelihood, n_filters=64, n_mixtures=1)


FAMILIES = {
    "spatial_lvae, padded": (lambda: spatial(GREY, 2), GREY, 2),
    "spatial_lvae, colour": (lambda: spatial(COLOUR, 256), COLOUR, 256),
    "efficient_vdvae": (lambda: small.very_deep(COLOUR, 256, widths=(48, 56, 64), n_mixtures=1), COLOUR, 256),
    "vdvae": (lambda: small.residual(width=64, custom_width_str="", n_mixtures=1), COLOUR, 256),
    "vae": (
        lambda: small.one_latent("vae", COLOUR, 256, widths=(32, 32, 32), likelihood="recon_sse"),
        COLOUR,
        256,
    ),
    "vqvae": (lambda: small.vqvae(width=64), COLOUR, 256),
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_maps_and_gradients_have_one_layout(name: str, precision: str) -> None:
    make, shape, n_levels = FAMILIES[name]
    model = make().to(memory_format=torch.channels_last).train()
    counts = counts_of_step(model, images(2, shape, n_levels), precision)
    assert counts.mixed_share < 0.01, counts.mixed


def test_the_count_sees_mixed_layouts() -> None:
    model = spatial(COLOUR, 256).to(memory_format=torch.channels_last).train()
    model.final.register_forward_hook(lambda module, args, y: y[..., 1:].repeat(1, 1, 1, 2)[..., :8])  # slices
    assert counts_of_step(model, images(2, COLOUR, 256)).mixed_share > 0.05


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_layout_is_kept_forward_and_backward(layout: torch.memory_format) -> None:
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    learned = torch.randn(1, 3, 6, 8, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    assert torch.equal(repeated(learned, 4), learned.expand(4, -1, -1, -1))
    assert torch.equal(plus_map(x, learned), x + learned)
    assert torch.equal(crop_to(x, (3, 5)), x[..., 1:4, 1:6])
    assert torch.equal(crop_to(pad_to(x, (9, 11)), (6, 8)), x)
    for function in (keeps_layout, lambda t: crop_to(t, (3, 5)), lambda t: plus_map(x.detach(), t), lambda t: t[:1]):
        assert torch.autograd.gradcheck(function, (learned,))
    for y, wanted in ((keeps_layout(x)[:, :1], x), (plus_map(x, learned), learned), (repeated(learned, 2), learned)):
        (gradient,) = torch.autograd.grad((y**2).sum(), wanted)
        assert gradient.is_contiguous(memory_format=layout)
    assert_close(torch.autograd.grad((crop_to(x, (3, 5)) ** 2).sum(), x)[0][..., 1:4, 1:6], 2 * x[..., 1:4, 1:6])
