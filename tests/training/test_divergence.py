"""A run that diverges: what is kept, what is said, where it goes on from; and that it never counts as finished."""

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import small
import torch
from running import assert_same_bits, checkpoint, scalars

from lvae_torch.distributed.graph import Inputs
from lvae_torch.elbo.bounds import Terms
from lvae_torch.errors import CfgError, DataError, NumericalError
from lvae_torch.files import read_json
from lvae_torch.runs.checkpoints import CheckpointStore
from lvae_torch.train import train
from lvae_torch.training.step import TrainStep

# A checkpoint and an evaluation every other step, and an end after more than two bad steps in a row.
WATCHFUL = {
    "train__steps": 12, "train__checkpoint_every": 2, "train__log_every": 1, "val__every": 2, "val__images": 0,
    "optimizer__max_skips_in_a_row": 2,
}  # fmt: skip
Spoil = Callable[[Iterable[int], int], None]


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Spoil:
    """Makes the gradients of some steps NaN, each step so many times."""

    def begin(steps: Iterable[int], times: int) -> None:
        left, honest, set_scalars = dict.fromkeys(steps, times), TrainStep._backward, TrainStep._set_scalars
        begun: list[int] = []

        def noted(self: TrainStep, step: int) -> None:
            begun.append(step)
            set_scalars(self, step)

        def spoiled(self: TrainStep, batch: Inputs, is_balanced: bool) -> tuple[torch.Tensor, Terms]:
            loss, terms = honest(self, batch, is_balanced)
            if left.get(begun[-1], 0) > 0:
                left[begun[-1]] -= 1
                self.flat.gradient.fill_(math.nan)
                loss = loss * math.nan
            return loss, terms

        monkeypatch.setattr(TrainStep, "_set_scalars", noted)
        monkeypatch.setattr(TrainStep, "_backward", spoiled)

    return begin


def run(folder: Path, wanted: Any = "last", **changes: Any) -> None:
    train(small.settings(folder, **{**WATCHFUL, **changes}), wanted)


def steps_in(folder: Path, suffix: str = "") -> list[int]:
    paths = (folder / "runs" / "small" / "checkpoints").glob(f"step_*.json{suffix}")
    return sorted(int(path.name[5:13]) for path in paths)


def status(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(folder / "runs" / "small" / "status.json")
    return found


def test_it_goes_back_and_is_finished(folder: Path, spoil: Spoil, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(range(6, 9), 1)
    run(folder, train__rollback=2, train__rollback_rate=0.5)
    state = checkpoint(folder, "small")["state"]
    assert (state["step"], state["rollbacks"], status(folder)["state"]) == (12, 1, "finished")
    logged = [(line["step"], line["train/learning_rate"]) for line in scalars(folder, "small") if "train/nll" in line]
    assert logged == [(k + 1, 1e-3 if k < 6 else 5e-4) for k in range(12)], "each step once, at the lower rate"
    counted = [line.get("train/rollbacks", 0) for line in scalars(folder, "small") if "train/nll" in line]
    assert counted == [0] * 6 + [1] * 6
    said = capsys.readouterr().err
    assert "checkpoint of step 6 is good" in said and "1 of 2 times; the learning rate is 0.0005" in said
    assert "skipped 1 of 1 steps (gradient norms: 1 not finite)" in said and "nan" not in said.lower()


def test_a_stop_after_going_back_changes_nothing(folder: Path, spoil: Spoil) -> None:
    spoil(range(6, 9), 1)
    run(folder, train__rollback=1)
    whole = checkpoint(folder, "small")
    spoil(range(6, 9), 1)
    run(folder, run__name="parts", train__rollback=1, train__steps=9)
    run(folder, run__name="parts", train__rollback=1)
    assert_same_bits(whole["model"], checkpoint(folder, "parts")["model"])
    assert checkpoint(folder, "parts")["state"]["rollbacks"] == 1


def test_it_goes_back_so_often_and_not_more(folder: Path, spoil: Spoil) -> None:
    spoil(range(4, 9), 99)
    with pytest.raises(NumericalError, match=r"step 7.*checkpoint of step 4 is good.*It went back 2 times already"):
        run(folder, train__rollback=2)
    assert status(folder)["state"] == "failed"


@pytest.mark.parametrize(
    "change",
    [{"train__batch_size": 4}, {"data__limit_val": 5}, {"train__steps": 20, "optimizer__schedule": "cosine"}],
    ids=["order", "scores", "rate"],
)
def test_it_does_not_go_back_to_before_settings_changed(folder: Path, spoil: Spoil, change: dict[str, Any]) -> None:
    """What is stored there is not what a start under today's settings makes of it; the repeated command does that."""
    every: dict[str, Any] = {"val__every": 4}  # an evaluation of step 6 again would save it under the new settings
    before = {key: value for key, value in change.items() if key == "optimizer__schedule"}
    for name in ("whole", "small"):
        run(folder, run__name=name, train__steps=6, **every, **before)
    run(folder, run__name="whole", **every, **change)
    spoil(range(6, 9), 1)
    with pytest.raises(NumericalError, match=r"repeat the command.*from step 6.*settings have changed since"):
        run(folder, train__rollback=2, **every, **change)
    assert (status(folder)["state"], steps_in(folder)[-1]) == ("failed", 6)
    run(folder, train__rollback=2, **every, **change)
    whole, repeated = (checkpoint(folder, name) for name in ("whole", "small"))
    assert_same_bits(whole["model"], repeated["model"])
    assert_same_bits(whole["state"], repeated["state"])


def test_it_goes_back_to_before_a_change_that_no_state_depends_on(folder: Path, spoil: Spoil) -> None:
    run(folder, train__steps=6)
    spoil(range(6, 9), 1)
    run(folder, train__rollback=1, optimizer__learning_rate=5e-4)
    state = checkpoint(folder, "small")["state"]
    assert (state["step"], state["rollbacks"], status(folder)["state"]) == (12, 1, "finished")


def test_without_going_back_the_same_command_goes_on_from_what_is_good(folder: Path, spoil: Spoil) -> None:
    """Checkpoints that were saved while steps were skipped are no good, and stand in nobody's way."""
    spoil(range(5, 9), 1)
    with pytest.raises(NumericalError, match=r"step 4 is good. Later ones \(8, 6\) are set aside") as told:
        run(folder, optimizer__max_skips_in_a_row=3)
    assert (steps_in(folder), steps_in(folder, ".aside")) == ([4], [6, 8]) and "rollback = 3" in str(told.value)
    run(folder)
    assert status(folder)["state"] == "finished" and checkpoint(folder, "small")["state"]["rollbacks"] == 0
    run(folder, run__name="whole")
    assert_same_bits(checkpoint(folder, "small")["model"], checkpoint(folder, "whole")["model"])


def test_where_nothing_is_good_the_next_start_begins_anew(folder: Path, spoil: Spoil) -> None:
    spoil(range(3), 1)
    with pytest.raises(NumericalError, match=r"No checkpoint is good.*the run begins anew"):
        run(folder)
    run(folder, optimizer__name="adam")  # nothing holds it to what it began with
    assert [line["step"] for line in scalars(folder, "small") if "train/nll" in line] == list(range(1, 13))


def test_an_end_without_a_number_is_no_success(folder: Path, spoil: Spoil, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(range(8, 12), 99)
    with pytest.raises(NumericalError, match="most of the last steps were not finite"):
        run(folder, train__log_every=2, optimizer__max_skips_in_a_row=50)
    assert status(folder)["state"] == "failed"
    assert capsys.readouterr().err.count("WARNING: most of these gradients") == 1, "at the first log line, not at each"


def test_steps_that_are_too_large_are_not_counted_as_not_finite(folder: Path, spoil: Spoil) -> None:
    """Two of these before one that is not finite; the next is taken, clipped, for three in a row were skipped."""
    spoil([2], 1)
    run(folder, optimizer__skip_norm=1e-3, train__steps=5)
    assert status(folder)["state"] == "finished"
    assert checkpoint(folder, "small")["meter"]["skips"].tolist() == [4, 1, 0]


LOST_AT_THE_END = {
    "train__steps": 16, "train__checkpoint_every": 8, "train__log_every": 4, "val__every": 0,
    "optimizer__max_skips_in_a_row": 50,
}  # fmt: skip


def test_a_checkpoint_at_a_lost_end_is_not_good(folder: Path, spoil: Spoil) -> None:
    """3 of the last 4 steps, though only 3 of the 8 since the checkpoint before."""
    spoil(range(13, 16), 1)
    run(folder, train__rollback=1, **LOST_AT_THE_END)
    state = checkpoint(folder, "small")["state"]
    assert (state["step"], state["rollbacks"], status(folder)["state"]) == (16, 1, "finished")
    last = [line for line in scalars(folder, "small") if "train/nll" in line][-1]
    assert (last["step"], last.get("train/skipped_now")) == (16, None), "it trained again from step 8 on"


def test_a_lost_end_is_known_after_a_kill(folder: Path, spoil: Spoil, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(range(13, 16), 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("lvae_torch.training.loop.check_ended_well", Mock(side_effect=KeyboardInterrupt))
        run(folder, **LOST_AT_THE_END)
    with pytest.raises(NumericalError, match=r"most of the last steps were not finite.*step 8 is good"):
        run(folder, **LOST_AT_THE_END)


@pytest.mark.parametrize("wanted", ["best", "good", 2])
def test_training_goes_on_from_a_named_checkpoint(folder: Path, wanted: Any) -> None:
    run(folder, train__steps=6, train__keep_checkpoints=9)
    whole = checkpoint(folder, "small")["model"]
    run(folder, wanted, train__steps=6, train__keep_checkpoints=9)
    assert_same_bits(whole, checkpoint(folder, "small")["model"])
    assert steps_in(folder, ".aside") == ([4, 6] if wanted == 2 else [])


def test_a_checkpoint_that_is_not_there_is_refused(folder: Path) -> None:
    run(folder, train__steps=4)
    with pytest.raises(DataError, match="no checkpoint 3; there are: 4, 2"):
        run(folder, 3)
    with pytest.raises(CfgError, match=r"initial_run.*'middle' is no checkpoint"):
        run(folder, run__name="next", train__initial_run="small@middle")


@pytest.mark.parametrize("which", ["2", "best"])
def test_a_run_begins_with_a_named_checkpoint_of_another(folder: Path, which: str) -> None:
    run(folder, train__steps=4, train__ema_decay=0.5)
    store = CheckpointStore(folder / "runs" / "small" / "checkpoints")
    given = store.load(int(which) if which.isdecimal() else "best")["ema"]
    more = {"run__name": "next", "train__initial_run": f"small@{which}", "optimizer__learning_rate": 1e-12}
    run(folder, train__steps=1, **more)
    begun = checkpoint(folder, "next")["model"]
    assert all(torch.allclose(begun[name], given[name], atol=1e-6) for name in given if "weight" in name)


def test_skipped_steps_are_told_with_their_norms(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder, optimizer__skip_norm=1e-3, train__log_every=4, optimizer__max_skips_in_a_row=100)
    said = capsys.readouterr().err
    line = next(line for line in scalars(folder, "small") if line.get("train/skipped_now"))
    median, largest = line["train/skipped_norm_median"], line["train/skipped_norm_largest"]
    assert (line["train/skipped_now"], line["train/nelbo"]) == (4, None) and 1e-3 < median <= largest
    assert f"skipped 4 of 4 steps (gradient norms: median {median:.4g}, largest {largest:.4g})" in said
    assert said.count("[optimizer] skip_norm = 0.001 skipped 4 of the last 4 steps") == 1
    assert f"to take all of them above {largest:.4g}" in said and "-ELBO nan" not in said


def test_the_value_that_is_told_lets_the_steps_through(folder: Path) -> None:
    run(folder, optimizer__skip_norm=1e-3, train__log_every=2, train__steps=2)
    line = next(line for line in scalars(folder, "small") if line.get("train/skipped_now"))
    run(folder, run__name="next", optimizer__skip_norm=1.001 * line["train/skipped_norm_largest"], train__steps=2)
    assert [line["train/skipped_steps"] for line in scalars(folder, "next") if "train/nll" in line] == [0, 0]


def test_older_manifests_are_read(folder: Path) -> None:
    run(folder, train__steps=4)
    for path in (folder / "runs" / "small" / "checkpoints").glob("*.json"):
        known = json.loads(path.read_text())
        del known["is_good"]
        path.write_text(json.dumps(known))
    assert CheckpointStore(folder / "runs" / "small" / "checkpoints").last_good() == 4
