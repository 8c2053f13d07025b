"""The parts of a training step: optimizers, schedules, EMA, skipping, metering."""

import math
from typing import Any

import pytest
import small
import torch
from steps import ALONE, HostReads, state_of, train_step
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.testing import assert_close

from lvae_torch.models.sources import posterior_sample
from lvae_torch.models.vae.made import MaskedLinear
from lvae_torch.training.ema import Ema
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.optimizers import OPTIMIZERS


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_flat_vector_trains_as_separate_tensors_do(name: str) -> None:
    ours, theirs = small.model(batch_norm=False).train(), small.model(batch_norm=False).train()
    step = train_step(ours, optimizer=name)
    optimizer = OPTIMIZERS[name](theirs.parameters(), lr=1e-3, weight_decay=0.0)  # type: ignore[call-arg]
    for k in range(4):
        x = small.images(8)
        torch.manual_seed(k)
        step(x, k)
        torch.manual_seed(k)
        optimizer.zero_grad()
        loss, _ = small.objective()(x, theirs(x, posterior_sample), k)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for (n, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert_close(a, b, rtol=1e-5, atol=1e-6, msg=lambda m, n=n: f"{n}: {m}")


def test_flat_parameters_keep_values_formats_and_gradients() -> None:
    model = small.model().to(memory_format=torch.channels_last)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    flat = FlatParameters(model)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.stride() == before[name].stride()
    assert flat.vector.numel() == sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        flat.vector.zero_()
    assert all(not p.any() for p in model.parameters())


def test_flat_buffers_keep_values_names_and_their_model() -> None:
    model = small.model().train()
    model(small.images(8), posterior_sample)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flat = FlatParameters(model)
    assert {vector.dtype for vector in flat.buffers} == {torch.float32, torch.int64}  # statistics, and their counters
    assert list(model.state_dict()) == list(before)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    model(small.images(8), posterior_sample)
    assert sum(int(vector.sum()) for vector in flat.buffers if vector.dtype == torch.int64) == 2 * sum(
        isinstance(module, nn.BatchNorm2d) for module in model.modules()
    )


def test_constants_that_no_state_has_stay_out_of_the_flat_buffers() -> None:
    model = MaskedLinear(torch.eye(3))
    mask = model.mask
    assert FlatParameters(model).buffers == []
    assert model.mask is mask


def test_a_frozen_parameter_stays_out() -> None:
    model = small.model(learn_top_prior=False)
    top = model.rungs[0].top_prior.clone()
    with torch.no_grad():
        FlatParameters(model).vector.zero_()
    assert torch.equal(model.rungs[0].top_prior, top)


@pytest.mark.parametrize("first", [True, False], ids=["first step", "later step"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_bad_gradient_leaves_no_trace(name: str, first: bool) -> None:
    """NaN in a batch: weights, moments, step counter and batch-norm statistics stay, bit for bit."""
    step = train_step(small.model().train(), optimizer=name)
    if not first:
        step(small.images(8), 0)
    before = state_of(step)
    step(torch.full((8, *small.IMAGE_SHAPE), math.nan), 1)
    for old, new in zip(before, state_of(step), strict=True):
        assert torch.equal(old, new)
    assert step.meter.skips.tolist() == [1.0, 1.0, 1.0]
    step(small.images(8), 2)
    assert step.meter.skips.tolist() == [1.0, 0.0, 0.0]
    assert not torch.equal(before[0], step.flat.vector)
    assert step.flat.vector.isfinite().all()


def test_a_gradient_above_the_threshold_is_skipped() -> None:
    step = train_step(small.model().train(), skip_norm=1e-6)
    before = state_of(step)
    step(small.images(8), 0)
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(step), strict=True))


def test_clipping_scales_to_the_norm() -> None:
    step = train_step(small.model(batch_norm=False).train(), clip_norm=0.5)
    step(small.images(8), 0)
    assert step.flat.gradient.norm().item() == pytest.approx(0.5, rel=1e-3)


def test_accumulated_parts_are_the_whole_batch() -> None:
    """Without noise between them: gradients of four parts average to that of the batch."""
    x = small.images(8)
    gradients = []
    for parts in (1, 4):
        model = small.model(batch_norm=False, max_log_std=1e-6).train()
        step = train_step(_Deterministic(model), accumulate=parts)
        step(x, 0)
        gradients.append(step.flat.gradient.clone())
    assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


class _Deterministic(nn.Module):
    """The model at its posterior means, whatever source it is called with."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.latent_shapes = model.latent_shapes

    def forward(self, x: Tensor, source: Any, n: int | None = None, samples: int = 1) -> Any:
        from lvae_torch.models.sources import posterior_mean

        return self.model(x, posterior_mean, n, samples)


@pytest.mark.parametrize("switches", [{}, {"clip_norm": 1.0, "skip_norm": 100.0, "accumulate": 2}])
def test_a_step_reads_nothing_back_from_the_device(switches: dict[str, Any]) -> None:
    model = small.model(dropout=0.2).train()
    ema = Ema(model, 0.9)
    step = train_step(model, ema=ema, **switches)
    counter = step.optimizer.state[step.flat.vector]["step"]
    with HostReads({counter.data_ptr()}) as reads:
        for k in range(3):
            step(small.images(8), k)
        assert reads.count == 0
        step.meter.read(ALONE)
        assert reads.count == 0  # tolist copies once; there is no item per number
        float(step.meter.sums[0])
        assert reads.count == 1  # the counter does count


def test_ema_is_torchs_own() -> None:
    model = small.model(batch_norm=False)
    ours = Ema(model, decay=0.8)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    theirs.update_parameters(model)  # its first update copies
    flat = FlatParameters(model)
    for k in range(5):
        with torch.no_grad():
            flat.vector.add_(0.1 * (k + 1))
        ours.update(flat, flat.vector.new_tensor(ours.share_at(10_000)))
        theirs.update_parameters(model)
    expected = dict(theirs.module.named_parameters())
    for name, parameter in ours.model.named_parameters():
        assert_close(parameter, expected[name], msg=lambda m, n=name: f"{n}: {m}")


def test_ema_forgets_the_initial_weights_soon() -> None:
    ema = Ema(small.model(), 0.999)
    assert ema.decay_at(0) == pytest.approx(0.1)
    assert ema.decay_at(90) == pytest.approx(0.91)
    assert ema.decay_at(10**6) == 0.999


def test_ema_averages_batch_norm_statistics_too() -> None:
    model = small.model().train()
    ema, flat = Ema(model, 0.5), FlatParameters(model)
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    mine = next(m for m in ema.model.modules() if isinstance(m, nn.BatchNorm2d))
    assert norm.running_mean is not None
    assert mine.running_mean is not None
    norm.running_mean.fill_(2.0)
    ema.update(flat, flat.vector.new_tensor(ema.share_at(10_000)))
    assert_close(mine.running_mean, torch.ones_like(mine.running_mean))
