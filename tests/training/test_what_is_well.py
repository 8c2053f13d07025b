"""When a run, a checkpoint or a reading counts as well; and how numbers that are not finite are told."""

import math
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from lvae_torch.errors import Diverged
from lvae_torch.reporting.console import ConsoleReporter
from lvae_torch.reporting.trackers.tensorboard import TensorBoardReporter
from lvae_torch.runs.checkpoint import State
from lvae_torch.runs.checkpoints import CheckpointStore
from lvae_torch.training.loop import check_ended_well, is_well
from lvae_torch.training.meter import Reading


@pytest.mark.parametrize(("last", "ends_well"), [(99.0, True), (1000.0, True), (10101.0, False), (math.nan, False)])
def test_a_run_that_ends_in_ruin_has_not_finished(last: float, ends_well: bool) -> None:
    """Also where all its numbers are finite; one that overfits is another thing."""
    run = SimpleNamespace(state=State(9, best_step=5, best_nelbo=100.0, last_nelbo=last))
    with nullcontext() if ends_well else pytest.raises(Diverged, match="step 9: the last"):
        check_ended_well(cast(Any, run))


@pytest.mark.parametrize(
    ("last", "best", "well"),
    [
        (100.0, 90.0, True), (math.nan, 90.0, False), (181.0, 90.0, False), (-math.inf, -90.0, False),
        (1.0, -90.0, False), (-50.0, -90.0, True), (0.9, 0.0, True), (None, math.inf, True),
    ],
)  # fmt: skip
def test_what_is_well(last: float | None, best: float, well: bool) -> None:
    assert is_well(State(last_nelbo=last, best_nelbo=best)) is well
    assert is_well(State(last_logged=last, best_logged=best)) is well


def test_a_checkpoint_that_is_not_finite_is_never_good(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    for step, value in ((1, 0.0), (2, math.nan), (3, math.inf)):
        store.save(step, {"model": {"w": torch.tensor([value])}})
        store.wait()
    assert store.last_good() == 1 and sorted(path.stem for path in tmp_path.glob("*.json")) == [
        "step_00000001", "step_00000003",
    ]  # fmt: skip


@pytest.mark.parametrize("values", [[1e30] * 3, [0.0, 1e30], [-1e-30, 1e-30], [3.0], [math.nan] * 2, [7e7, 7e7 + 8]])
def test_distributions_of_any_numbers_can_be_kept(tmp_path: Path, values: list[float]) -> None:
    import numpy as np

    TensorBoardReporter(tmp_path).histogram(1, "x", np.array(values, dtype=np.float32))


def test_what_is_not_finite_is_told_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    ConsoleReporter(10).scalars(5, {"val/nelbo": math.nan, "val/nll": math.inf, "val/kl": 1.0})
    assert capsys.readouterr().err == "step 5: validation -ELBO not finite  NLL not finite  KL 1.00\n"
    ConsoleReporter(10).scalars(5, {"val/nelbo": 11270194301298414.0, "val/nll": 2e6, "val/kl": 1.0})
    assert capsys.readouterr().err == "step 5: validation -ELBO 1.13e+16  NLL 2000000.00  KL 1.00\n"


def test_a_reading_is_lost_where_most_was_not_finite() -> None:
    def reading(taken: int, norms: tuple[float, ...], nll: float = 0) -> Reading:
        return Reading(0, nll, (), 0, taken, len(norms), len(norms), {}, norms, len(norms))

    assert reading(0, (math.nan, math.inf)).is_lost and reading(1, (math.nan,) * 2).is_lost
    assert reading(5, (), math.inf).is_lost and not reading(5, ()).is_lost
    assert not reading(1, (math.nan,)).is_lost and not reading(0, (math.nan, 5.0)).is_lost
