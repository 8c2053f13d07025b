"""A step is a function of tensors that stay where they are, so that a device can replay it."""

import gc
from typing import Any

import pytest
import small
import steps
import torch
from torch import Tensor

from lvae_torch.data.labelled import Labelled
from lvae_torch.training.ema import Ema
from lvae_torch.training.graph import WARM_UP, GraphedStep


def homes(step: Any) -> dict[str, int]:
    """Where the tensors of a step lie, by their owners' attributes, and which objects the owners hold."""
    owners = {"meter": step.meter, "step": step, "flat": step.flat, "ema": step.ema, "emas": step.ema.flat}
    found = {f"{name}.{key}": id(value) for name, owner in owners.items() for key, value in vars(owner).items()}
    tensors = {f"{name}.{key}": value for name, owner in owners.items() for key, value in vars(owner).items()}
    tensors |= {f"optimizer.{key}": value for key, value in step.optimizer.state[step.flat.vector].items()}
    tensors |= dict(step.bare.state_dict(keep_vars=True)) | {"gradient": step.flat.gradient}
    return found | {f"{key} lies": value.data_ptr() for key, value in tensors.items() if isinstance(value, Tensor)}


@pytest.mark.parametrize("optimizer", ["adam", "adamax", "adamw", "radam"])
@pytest.mark.parametrize(
    "make", [small.model, small.vqvae, small.very_deep, small.residual], ids=lambda make: make.__name__
)
def test_nothing_is_bound_anew_by_a_step(make: Any, optimizer: str) -> None:
    model = make().train()
    step = steps.train_step(model, optimizer=optimizer, ema=Ema(model, 0.99), skip_norm=1e9)
    x = small.images(4, model.image_shape, 2)
    step(x, 0)  # the meter learns names in the first step
    before = homes(step)
    for k in range(1, 3):
        step(x * (float("nan") if k == 2 else 1.0), k)
    assert {key for key, home in homes(step).items() if before[key] != home} == set()
    assert step.meter.skipped() == 1


class FakeGraph:
    """Stands for a CUDA graph: notes what was captured, and does it again when it is replayed."""

    def __init__(self) -> None:
        MADE.append(self)
        self.number = len(MADE)

    def replay(self) -> None:
        TAKEN.append(("replay", self.number))


MADE: list[FakeGraph] = []
TAKEN: list[Any] = []


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is captured, without a card."""
    seen: list[Any] = []

    class Capture:
        def __init__(self, graph: FakeGraph, capture_error_mode: str) -> None:
            seen.append(graph)

        def __enter__(self) -> None:
            TAKEN.append("capture")

        def __exit__(self, *reason: Any) -> None:
            TAKEN.append("captured")

    TAKEN.clear()
    MADE.clear()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", Capture)
    return seen


def test_each_step_is_taken_once_and_captured_after_a_warm_up(captures: list[Any]) -> None:
    graphed = GraphedStep(lambda raw, step: TAKEN.append(step))
    for step in range(WARM_UP + 2):
        graphed(Labelled(torch.full((2, 3), step)), step, False)
    assert TAKEN == [0, 1, 2, "capture", 3, "captured", ("replay", 1), ("replay", 1)]


@pytest.mark.parametrize("change", ["key", "shape", "forget"])
def test_another_course_of_the_step_is_captured_anew(captures: list[Any], change: str) -> None:
    graphed = GraphedStep(lambda raw, step: TAKEN.append(step))
    for step in range(WARM_UP + 1):
        graphed(Labelled(torch.zeros(2)), step, True)
    TAKEN.clear()
    if change == "forget":
        graphed.forget()
    raw = Labelled(torch.zeros(3 if change == "shape" else 2))
    for step in range(WARM_UP + 1):
        graphed(raw, step, change != "key")
    assert TAKEN == [0, 1, 2, "capture", 3, "captured", ("replay", 2)]


def test_the_graph_reads_its_own_copy_of_the_batch(captures: list[Any]) -> None:
    read: list[Labelled] = []
    graphed = GraphedStep(lambda raw, step: read.append(raw))
    for step in range(WARM_UP + 2):
        graphed(Labelled(torch.full((2,), step), torch.full((2,), -step)), step, None)
    gc.collect()
    last = torch.full((2,), WARM_UP + 1)
    assert len(read) == WARM_UP + 1 and torch.equal(read[-1].images, last)
    assert read[-1].labels is not None and torch.equal(read[-1].labels, -last)


def test_a_step_that_cannot_be_captured_is_taken_as_it_is(
    captures: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def step(raw: Labelled, k: int) -> None:
        if TAKEN and TAKEN[-1] == "capture":
            raise RuntimeError("operation not permitted when stream is capturing\nand so on")
        TAKEN.append(k)

    graphed = GraphedStep(step)
    for k in range(WARM_UP + 3):
        graphed(Labelled(torch.zeros(2)), k, None)
    assert [taken for taken in TAKEN if isinstance(taken, int)] == list(range(WARM_UP + 3))
    assert len(captures) == 1, "tried once"
    assert capsys.readouterr().err.count("\n") == 1
