"""Weights in bfloat16, converted all at once: the same bits as with autocast, which converts each."""

from collections.abc import Callable
from typing import Any

import pytest
import small
import steps
import torch

from lvae_torch.training.half_weights import HalfWeights
from lvae_torch.training.reduction import GradientSlices
from lvae_torch.training.step import TrainStep

IMAGES = (3, 8, 8)
MODELS: dict[str, Callable[[], Any]] = {
    "spatial_lvae": lambda: small.model(IMAGES, batch_norm=True, dropout=0.2),
    "efficient_vdvae": lambda: small.very_deep(IMAGES),
    "vdvae": lambda: small.residual(IMAGES),
    "ladder": lambda: small.dense("ladder", IMAGES),
}


def use_half_weights(step: TrainStep) -> None:
    step.half = HalfWeights(step.bare, step.flat)
    step.slices = GradientSlices(step.flat, slice_bytes=1000, copies=step.half.copies)


def trained(name: str, is_half: bool, compiler: str | None = None) -> list[torch.Tensor]:
    """What two steps in bfloat16 come to."""
    model = MODELS[name]().to(memory_format=torch.channels_last).train()
    step = steps.train_step(model, autocast=torch.autocast("cpu", torch.bfloat16), compiler=compiler)
    if is_half:
        use_half_weights(step)
    for k in range(2):
        torch.manual_seed(k)
        step(small.images(4, IMAGES, 256 if name == "vdvae" else 2), k)
    assert step.flat.vector.dtype == torch.float32 and step.flat.gradient.dtype == torch.float32
    return [*steps.state_of(step), step.flat.gradient.clone(), *(p.data for p in model.parameters())]


@pytest.mark.parametrize("name", MODELS)
def test_they_change_no_bit(name: str) -> None:
    ours, plain = trained(name, is_half=True), trained(name, is_half=False)
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("name", MODELS)
def test_they_change_no_bit_of_a_compiled_step(name: str) -> None:
    ours, plain = (trained(name, is_half, compiler="aot_eager") for is_half in (True, False))
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))


def test_layers_are_given_half_precision() -> None:
    model = MODELS["spatial_lvae"]().train()
    step = steps.train_step(model, autocast=torch.autocast("cpu", torch.bfloat16))
    seen: list[torch.dtype] = []
    model.head.register_forward_hook(lambda layer, args, y: seen.append(layer.weight.dtype))
    use_half_weights(step)
    step(small.images(4, IMAGES), 0)
    assert seen == [torch.bfloat16] and model.head.weight.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_fifty_steps_go_as_in_single_precision(name: str) -> None:
    """The same images and seeds: the losses fall alike, far closer than they fall."""
    single, half = (losses(name, is_half) for is_half in (False, True))
    fall = single[:5].mean() - single[-5:].mean()
    assert fall > 0
    assert (half - single).abs().mean() < 0.1 * fall


def losses(name: str, is_half: bool) -> torch.Tensor:
    """The loss of each of 50 steps."""
    torch.manual_seed(0)
    model = MODELS[name]().to(memory_format=torch.channels_last).train()
    step = steps.train_step(model, autocast=torch.autocast("cpu", torch.bfloat16) if is_half else None)
    if is_half:
        use_half_weights(step)
    seen: list[torch.Tensor] = []
    add = step.meter.add

    def kept(loss: torch.Tensor, *others: Any) -> None:
        seen.append(loss)
        add(loss, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step.meter, "add", kept)
        for k in range(50):
            torch.manual_seed(k)
            step(small.images(8, IMAGES, 256 if name == "vdvae" else 2), k)
    return torch.stack(seen)
