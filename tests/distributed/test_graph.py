"""Work is done once each time, then captured and replayed; without a card, by a stand-in for the graph."""

import gc
from typing import Any

import pytest
import torch
from torch import Tensor

from lvae_torch.distributed.graph import WARM_UP, Graphed, Inputs, Outputs


class FakeGraph:
    """Stands for a CUDA graph: notes what was captured, and that it is replayed."""

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


def noting(inputs: Inputs, key: object) -> Outputs:
    (x,) = inputs
    assert x is not None
    TAKEN.append(x[0].item())
    return {"double": 2 * x}


def filled(value: int, n: int = 2) -> tuple[Tensor]:
    return (torch.full((n,), value),)


def test_work_is_done_once_each_time_and_captured_after_a_warm_up(captures: list[Any]) -> None:
    graphed = Graphed(noting, "it")
    for k in range(WARM_UP + 2):
        graphed(filled(k), False)
    assert TAKEN == [0, 1, 2, "capture", 3, "captured", ("replay", 1), ("replay", 1)]


@pytest.mark.parametrize("is_other_key", [True, False], ids=["another key", "another shape"])
def test_work_of_another_form_is_done_as_it_is(captures: list[Any], is_other_key: bool) -> None:
    graphed = Graphed(noting, "it")
    for k in range(WARM_UP + 2):
        graphed(filled(k), True)
    TAKEN.clear()
    for k in range(WARM_UP + 2):
        graphed(filled(k, 2 if is_other_key else 3), not is_other_key)
    graphed(filled(9), True)
    assert [*range(WARM_UP + 2), ("replay", 1)] == TAKEN


def test_what_is_forgotten_is_captured_anew_whatever_its_form(captures: list[Any]) -> None:
    graphed = Graphed(noting, "it")
    for k in range(WARM_UP + 1):
        graphed(filled(k), True)
    TAKEN.clear()
    graphed.forget()
    for k in range(WARM_UP + 1):
        graphed(filled(k, 3), False)
    assert TAKEN == [0, 1, 2, "capture", 3, "captured", ("replay", 2)]


def test_the_graph_reads_its_own_copy_and_what_it_writes_is_given_as_a_copy(captures: list[Any]) -> None:
    read: list[Tensor] = []

    def work(inputs: Inputs, key: None) -> Outputs:
        x, missing = inputs
        assert x is not None and missing is None
        read.append(x)
        return {"itself": x}

    graphed = Graphed(work, "it")
    written = [graphed((torch.full((2,), k), None), None)["itself"] for k in range(WARM_UP + 3)]
    gc.collect()
    assert len(read) == WARM_UP + 1 and read[-1].tolist() == 2 * [WARM_UP + 2]
    assert [tensor[0].item() for tensor in written] == list(range(WARM_UP + 3))


def test_what_cannot_be_captured_is_done_as_it_is(captures: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    def work(inputs: Inputs, key: int) -> Outputs:
        if TAKEN and TAKEN[-1] == "capture":
            raise RuntimeError("operation not permitted when stream is capturing\nand so on")
        TAKEN.append(inputs[0][0].item() if inputs[0] is not None else key)
        return {}

    graphed = Graphed(work, "the step")
    for k in range(WARM_UP + 3):
        graphed(filled(k), 0)
    assert [taken for taken in TAKEN if isinstance(taken, int)] == list(range(WARM_UP + 3))
    assert len(captures) == 1, "tried once"
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "the step cannot be captured (operation not permitted" in told
