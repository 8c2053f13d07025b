"""Learning-rate schedules, the meter, and steps that are undone."""

import math
from typing import Any

import pytest
import small
import torch
from steps import ALONE, train_step
from torch.testing import assert_close

from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.meter import Meter
from lvae_torch.training.optimization import GuardedStep, decay_before_steps
from lvae_torch.training.schedules import READ_BY, SCHEDULES


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1.0, 1.0, 1.0, 1.0]),
        ("cosine", [1.0, 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)), 0.55, 0.1]),
        ("exponential", [1.0, 0.5**2.5, 0.1, 0.1]),
    ],
)
def test_schedules(schedule: str, expected: list[float]) -> None:
    rate = small.rate(schedule, 100, learning_rate=1.0, final_learning_rate=0.1, decay_rate=0.5, decay_steps=10)
    assert [rate(step) for step in (0, 25, 50, 100)] == pytest.approx(expected)


def test_each_schedule_reads_the_keys_that_it_is_said_to_read() -> None:
    """Changed alone, another key changes no rate."""
    base: dict[str, Any] = {"learning_rate": 1.0, "warmup_steps": 2, "decay_steps": 7}
    changes = {"decay_start": 9, "decay_end": 30, "final_learning_rate": 0.3, "decay_rate": 0.9, "decay_steps": 11}
    for key, schedules in READ_BY.items():
        for schedule in SCHEDULES:
            rates = [small.rate(schedule, 40, **{**base, **changed}) for changed in ({}, {key: changes[key]})]
            before, after = ([rate(step) for step in range(40)] for rate in rates)
            assert (before != after) == (schedule in schedules), (key, schedule)


def test_a_gradient_that_stays_too_large_is_taken_at_the_length_of_the_limit() -> None:
    """Otherwise the weights, and with them the gradients, would stay the same for ever."""
    model = small.model(batch_norm=False).train()
    step = train_step(model, skip_norm=1e-3, max_skips_in_a_row=2)
    torch.manual_seed(0)
    raw = torch.rand(4, 1, 8, 8)
    lengths = []
    step.optimizer.register_step_pre_hook(lambda *_: lengths.append(float(step.flat.gradient.norm())))
    before = step.flat.vector.detach().clone()
    moved = []
    for k in range(6):
        step(raw, k)
        moved.append(not torch.equal(step.flat.vector, before))
        before = step.flat.vector.detach().clone()
    assert moved == [False, False, True, False, False, True]
    assert lengths == pytest.approx([1e-3, 1e-3], rel=1e-3)


def test_only_the_weights_of_blocks_decay_and_apart_from_the_gradient() -> None:
    """p <- p - lr (direction + rate p), as the JAX Efficient-VDVAE has it."""
    decayed, plain = (small.model(batch_norm=False).train() for _ in range(2))
    steps = [train_step(model) for model in (decayed, plain)]
    chosen = next(p for p in decayed.parameters() if p.dim() == 4)
    decay_before_steps(steps[0].optimizer, [chosen], rate=0.1)
    start = [p.detach().clone() for p in decayed.parameters()]
    torch.manual_seed(0)
    raw = torch.rand(4, 1, 8, 8)
    for step in steps:
        torch.manual_seed(1)
        step(raw, 0)
    for p, q, old in zip(decayed.parameters(), plain.parameters(), start, strict=True):
        assert_close(p, q - 1e-3 * 0.1 * old if p is chosen else q)


def test_warmup_rises_to_the_peak_and_noam_falls_from_it() -> None:
    rate = small.rate("noam", 1000, learning_rate=1.0, warmup_steps=100)
    rising = [rate(step) for step in range(101)]
    assert rising == sorted(rising)
    assert rate(0) > 0
    assert rate(100) == pytest.approx(1.0)
    assert rate(400) == pytest.approx(0.5)


def test_meter_gives_means_without_the_skipped_steps() -> None:
    from lvae_torch.elbo.bounds import Terms

    meter = Meter(2, torch.device("cpu"))
    for nll, ok in ((4.0, True), (math.nan, False), (6.0, True)):
        terms = Terms(torch.full((3,), nll), torch.tensor([[1.0, 2.0]] * 3))
        meter.add(torch.tensor(nll + 3), terms, torch.tensor(nll), torch.tensor(ok))
    reading = meter.read(ALONE)
    assert (reading.n_steps, reading.skipped, reading.skipped_in_a_row) == (2, 1, 0)
    assert (reading.nll, reading.nelbo, reading.loss) == (5.0, 8.0, 8.0)
    assert reading.kl == (1.0, 2.0)
    assert meter.read(ALONE).n_steps == 0


def test_a_meter_tells_which_skipped_steps_had_no_finite_gradient() -> None:
    """Gradients that are only too large, or a step that is taken, end a row of those that are not finite."""
    from lvae_torch.elbo.bounds import Terms

    meter, found = Meter(1, torch.device("cpu")), []
    for norm, ok in ((9.0, False), (9.0, False), (math.nan, False), (math.inf, False), (9.0, False), (1.0, True)):
        meter.add(torch.tensor(1.0), Terms(torch.ones(3), torch.ones(3, 1)), torch.tensor(norm), torch.tensor(ok))
        reading = meter.read(ALONE)
        found.append((reading.skipped_in_a_row, reading.not_finite_in_a_row))
    assert found == [(1, 0), (2, 0), (3, 1), (4, 2), (5, 0), (0, 0)]
    older, known = Meter(1, torch.device("cpu")), meter.state_dict()
    older.load_state_dict({**known, "skips": torch.tensor([7.0, 3.0])})
    assert older.skips.tolist() == [7, 3, 0]


@pytest.mark.parametrize("name", ["adam", "adamw", "adamax", "radam"])
@pytest.mark.parametrize("ok", [True, False])
def test_a_step_that_is_undone_on_the_device_leaves_no_trace(name: str, ok: bool) -> None:
    """What GPUs do, against what CPUs do: step, or do not."""
    after = []
    for way in ("step_and_undo", "__call__"):
        flat = FlatParameters(small.model())
        optimizer = small.optimizer(flat, name, weight_decay=0.01)
        guarded = GuardedStep(optimizer, flat)
        for k, is_good in enumerate((True, ok, True)):
            flat.gradient.copy_(torch.linspace(-1, 1, len(flat.gradient)) * (k + 1) if is_good else torch.nan)
            optimizer.param_groups[0]["lr"] = 0.1
            getattr(guarded, way)(torch.tensor(is_good))
        after.append([flat.vector.detach().clone(), *optimizer.state[flat.vector].values()])
    assert all(torch.equal(a, b) for a, b in zip(*after, strict=True))
    assert after[0][0].isfinite().all()
