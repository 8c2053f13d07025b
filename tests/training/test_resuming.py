"""Changes between two starts of one run: what they mean is told, keeps its sense, or is refused without a trace."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from running import checkpoint, scalars

from lvae_torch.data.order import TrainingOrder
from lvae_torch.distributed.cpu import with_threads
from lvae_torch.errors import CfgError, DataError
from lvae_torch.files import read_json
from lvae_torch.hparams import in_steps
from lvae_torch.resuming.changes import (
    THREADS,
    after_changes,
    places_changed,
    settings_changed,
    table_of,
    threads_to_keep,
)
from lvae_torch.runs.checkpoint import State
from lvae_torch.train import command, train
from lvae_torch.training.step import TrainStep


def run(folder: Path, **changes: Any) -> None:
    train(small.settings(folder, **{"val__images": 0, **changes}))


def everything(folder: Path) -> dict[Path, bytes]:
    """All files of all runs; the lock alone says who looked."""
    return {p: p.read_bytes() for p in (folder / "runs").rglob("*") if p.is_file() and p.name != "run.lock"}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"train__steps": 2, "optimizer__learning_rate": 0.5}, "steps = 2, but this run has taken 6"),
        ({"model__n_filters": 5}, "other settings that shape the model"),
        ({"run__seed": 1}, "other settings that shape the model or the data"),
        ({"optimizer__name": "adam", "train__steps": 9}, "other settings"),
        ({"train__batch_size": 37}, "fewer than"),
        ({"optimizer__warmup_steps": 50, "train__steps": 9}, "takes all of"),
        ({"train__accumulate": 3}, "does not divide"),
        ({"data__val_split": "valid"}, "has train, test"),
    ],
)
def test_a_refused_command_changes_nothing(folder: Path, wrong: dict[str, Any], told: str) -> None:
    run(folder)
    before = everything(folder)
    with pytest.raises((CfgError, DataError), match=told):
        run(folder, **wrong)
    assert everything(folder) == before
    assert read_json(folder / "runs" / "small" / "status.json")["state"] == "finished"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run.seed", 1), ("optimizer.name", "adam"), ("data.flip", True), ("train.freeze", ["stem.*"]),
        ("train.channels_last", False),
    ],
)  # fmt: skip
def test_without_its_kept_settings_a_run_is_held_to_those_of_its_checkpoint(folder: Path, key: str, value: Any) -> None:
    run(folder, train__steps=2)
    (folder / "runs" / "small" / "hparams.cfg").unlink()
    before = everything(folder)
    with pytest.raises(CfgError, match="other settings that shape the model or the data") as told:
        run(folder, train__steps=4, **{key.replace(".", "__"): value})
    section, name = key.split(".")
    assert f"[{section}] {name} " in str(told.value) and everything(folder) == before


def test_scores_of_another_split_begin_a_new_record(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder, val__every=2)
    known = checkpoint(folder, "small")["state"]
    capsys.readouterr()
    run(folder, val__every=2, data__limit_val=5, train__steps=8, val__patience=3)
    state = checkpoint(folder, "small")["state"]
    assert known["best_step"] > 0 and state["step"] == 8, "patience counts from the change on"
    values = [line["val/nelbo"] for line in scalars(folder, "small") if "val/nelbo" in line and line["step"] >= 6]
    assert state["best_nelbo"] == min(values[1:]), "of evaluations since the change"
    assert "the best and patience begin anew" in capsys.readouterr().err
    assert "begin anew" in (folder / "runs" / "small" / "changes.txt").read_text()


@pytest.mark.parametrize(("first", "then", "at"), [(4, 7, 5), (8, 3, 3), (5, 5, 6), (36, 1, 1), (3, 36, 7), (7, 8, 15)])
def test_an_order_goes_on_with_another_batch(first: int, then: int, at: int) -> None:
    """No image comes twice in an epoch, none is jumped over but what an epoch leaves at its end."""
    old = TrainingOrder(36, first, seed=3)
    new = old.with_batch(then, at)
    epoch, place = old.place(at)
    seen = [image for step in range(at) for image in old.batch(step)][epoch * (36 // first) * first :]
    until = at + (36 - place) // then
    seen += [image for step in range(at, until) for image in new.batch(step)]
    assert max(Counter(seen).values(), default=1) == 1 and len(seen) > 36 - max(first, then)
    for k in range(3):  # whole epochs follow, in the order that any batch size has
        later = np.concatenate([new.batch(until + k * (36 // then) + j) for j in range(36 // then)])
        assert (later == TrainingOrder(36, 1, seed=3)._permutation(epoch + 1 + k)[: len(later)]).all()
    assert until == new.origin + (epoch + 1) * (36 // then)


def test_an_order_with_the_same_batch_is_the_same() -> None:
    old = TrainingOrder(36, 8, seed=3)
    assert all((old.with_batch(8, 6).batch(step) == old.batch(step)).all() for step in range(6, 20))


def test_epochs_asked_for_after_a_change_of_batch_are_trained(folder: Path) -> None:
    """2 epochs of 4 steps, then up to the end of the fifth with 2 steps each; back again for the sixth."""
    run(folder, train__steps="2 epochs", val__every="1 epoch")
    run(folder, train__steps="5 epochs", val__every="1 epoch", train__batch_size=16)
    state = checkpoint(folder, "small")["state"]
    assert (state["step"], list(state["anchor"]), state["origin"]) == (8 + 6, [8, 2, 0], 4)
    run(folder, train__steps="6 epochs", val__every="1 epoch", train__batch_size=8)
    assert checkpoint(folder, "small")["state"]["step"] == 14 + 4
    assert [line["step"] for line in scalars(folder, "small") if "val/nelbo" in line] == [4, 8, 10, 12, 14, 18]


def test_a_stop_after_a_change_of_batch_changes_nothing(folder: Path) -> None:
    ends = []
    for name, steps in (("whole", [12]), ("parts", [9, 10, 12])):
        run(folder, run__name=name, train__steps=5)
        for n in steps:
            run(folder, run__name=name, train__steps=n, train__batch_size=4)
        ends.append(checkpoint(folder, name)["model"])
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def start(
    tmp_path: Path, old: dict[str, Any], new: dict[str, Any], step: int
) -> tuple[State, list[float], list[float]]:
    """The state after a change at ``step``, and the learning rates that would have come, and that come."""
    rates, known, order = [], small.settings(tmp_path, **old), TrainingOrder(36, 8, 0)
    settings, after = small.settings(tmp_path, **new), order
    if settings.train.batch_size != 8:
        after = order.with_batch(settings.train.batch_size, step)
    resolved = in_steps(known, 4), in_steps(settings, after.steps_per_epoch, after.origin)
    state = after_changes(State(step), *resolved, after, settings)
    for of, now in zip(resolved, (State(step), state), strict=True):
        follower: Any = TrainStep.__new__(TrainStep)
        follower.learning_rate = small.rate(
            total_steps=of.train.total_steps - now.origin, **of.optimizer.model_dump(exclude={"name"})
        )
        follower.follow(now, 1.0)
        rates.append([follower.rate_at(k) for k in range(step - 1, of.train.total_steps)])
    return state, rates[0], rates[1]


COSINE = {"optimizer__schedule": "cosine", "optimizer__learning_rate": 1.0}


@pytest.mark.parametrize("step", [10, 50, 100])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_longer_schedule_has_no_jump(tmp_path: Path, step: int, schedule: str) -> None:
    old = {**COSINE, "train__steps": 100, "optimizer__schedule": schedule}
    _, before, after = start(tmp_path, old, {**old, "train__steps": 500}, step)
    changes = np.abs(np.diff(after))
    assert after[0] == pytest.approx(before[0], abs=0.04) and changes.max() < 0.08
    whole = small.rate(schedule, 500, learning_rate=1.0)
    assert after[60:] == pytest.approx([whole(step - 1 + k) for k in range(60, len(after))]), "then it follows"


@pytest.mark.parametrize("more", [1, 2, 5, 10, 11, 60])
@pytest.mark.parametrize("step", [50, 90, 100])
def test_a_few_steps_more_bring_no_jump(tmp_path: Path, step: int, more: int) -> None:
    """The rate never rises or falls by more in a step than the straight line from where it was takes in ten."""
    old = {**COSINE, "train__steps": 100}
    _, before, after = start(tmp_path, old, {**old, "train__steps": 100 + more}, step)
    assert len(after) == 101 + more - step
    assert after[0] == pytest.approx(before[0], abs=0.04) and np.abs(np.diff(after)).max() < 0.08


def test_a_second_change_on_the_way_brings_no_jump(tmp_path: Path) -> None:
    """The rate goes on from where it had come, not from where the schedule that it was led to would be."""
    known, longer, longest = (small.settings(tmp_path, **COSINE, train__steps=n) for n in (100, 500, 1000))
    order = TrainingOrder(36, 8, 0)
    first = after_changes(State(100), known, longer, order, longer)
    second = after_changes(replace(first, step=105), longer, longest, order, longest)
    target = small.rate("cosine", 500, learning_rate=1.0)(105)
    assert second.rate_from[:2] == (105, pytest.approx(target * 6 / 21))


def test_a_longer_cosine_is_told(tmp_path: Path) -> None:
    old, new = (small.settings(tmp_path, **COSINE, train__steps=n) for n in (100, 200))
    state = after_changes(State(100), old, new, TrainingOrder(36, 8, 0), new)
    table = table_of(list(settings_changed(old, new, State(100), state, TrainingOrder(36, 8, 0))))
    assert "from step 100 on the learning rate rises from 0 to 0.422 over 10 steps, then follows it" in table


@pytest.mark.parametrize("changes", [{"optimizer__learning_rate": 0.1}, {"train__log_every": 7}])
def test_other_changes_take_effect_at_once(tmp_path: Path, changes: dict[str, Any]) -> None:
    old = {**COSINE, "train__steps": 100}
    state, _, after = start(tmp_path, old, {**old, **changes}, 50)
    assert tuple(state.rate_from) == (0, 0.0, 0)
    assert after[1] == pytest.approx(0.5 * changes.get("optimizer__learning_rate", 1.0))


@pytest.mark.parametrize("batch", [4, 16, 12])
@pytest.mark.parametrize("step", [6, 13, 24])
def test_schedules_in_epochs_keep_their_place(tmp_path: Path, batch: int, step: int) -> None:
    old = {**COSINE, "train__steps": "10 epochs", "optimizer__warmup_steps": "3 epochs"}
    state, before, after = start(tmp_path, old, {**old, "train__batch_size": batch}, step)
    assert after[1] == pytest.approx(before[1], abs=0.12) and after[-1] < 0.05  # of steps of other lengths
    assert step + len(after) - 2 - state.origin == 10 * (36 // batch) - 1


def test_another_number_of_threads_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder, train__steps=2)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        run(folder, train__steps=4)
    finally:
        torch.set_num_threads(threads)
    row = next(line for line in capsys.readouterr().err.splitlines() if "[where] threads" in line)
    assert f"'{threads}'" in row and f"'{threads + 1}'" in row and "last bits differ" in row


def test_a_run_keeps_its_threads(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, although a new start would compute on another number."""
    monkeypatch.setattr("lvae_torch.resuming.changes.n_cores", lambda: 8)
    with with_threads(2):
        run(folder, run__name="whole", train__steps=4)
        run(folder, train__steps=2)
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    with with_threads(1):
        run(folder, train__steps=4)
        assert torch.get_num_threads() == 1
    told = capsys.readouterr().err
    assert "threads: 2, as this run had until now" in told and "[where] threads" not in told
    whole, parts = (checkpoint(folder, name) for name in ("whole", "small"))
    assert whole["meta"]["computed_on"] == parts["meta"]["computed_on"]
    for name, weight in whole["model"].items():
        assert torch.equal(weight, parts["model"][name]), name


@pytest.mark.parametrize(
    ("known", "now", "environment"),
    [
        ({}, {}, {}),
        ({"threads": "2"}, {"threads": "2"}, {}),
        ({"threads": "2"}, {"threads": "1"}, {"OMP_NUM_THREADS": "1"}),
        ({"threads": "2"}, {"threads": "1", "processes": "2"}, {}),
        ({"threads": "16"}, {}, {}),
        ({"threads": "2"}, {"device": "cuda H"}, {}),
    ],
)
def test_where_the_threads_are_left_as_they_are(
    known: dict[str, str], now: dict[str, str], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lvae_torch.resuming.changes.n_cores", lambda: 8)
    place = {"device": "cpu", "processes": "1"}
    assert threads_to_keep({**place, **known}, {**place, "threads": "1", **now}, environment) is None


def test_places_are_told_where_both_are_known() -> None:
    assert not list(places_changed({}, {"device": "cpu"}))
    now = {"device": "cuda H", "processes": "2"}
    told = {c.key: effect for c, effect in places_changed({"device": "cpu", "processes": "1", "threads": "2"}, now)}
    assert told.keys() == {"device", "processes"} and "noise" in told["processes"]


def test_a_copied_run_is_a_run_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    run(folder, train__steps=2)
    shutil.copytree(folder / "runs" / "small", folder / "runs" / "copy")
    before = (folder / "runs" / "small" / "checkpoints" / "step_00000002.pt").read_bytes()
    command([str(folder / "runs" / "copy" / "hparams.cfg"), "--set", "train.steps=4"])
    assert checkpoint(folder, "copy")["state"]["step"] == 4 and checkpoint(folder, "small")["state"]["step"] == 2
    assert (folder / "runs" / "small" / "checkpoints" / "step_00000002.pt").read_bytes() == before
