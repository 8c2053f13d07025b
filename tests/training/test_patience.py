"""Early stopping: when it ends a run, which weights the run then goes by, and that no stop or kill changes either."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from running import assert_same_bits, checkpoint, command, run, scalars, stop_at

from lvae_torch.errors import CfgError, DataError, NumericalError, Preempted
from lvae_torch.files import read_json
from lvae_torch.hparams import load_text
from lvae_torch.runs.checkpoint import load_chosen
from lvae_torch.runs.checkpoints import CheckpointStore
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train
from lvae_torch.training import loop

# The steps become so long that a small model gets worse after a few of them.
WORSENING = {
    "train__steps": 30,
    "train__checkpoint_every": 4,
    "train__keep_checkpoints": 1,
    "val__every": 1,
    "val__patience": 2,
    "val__images": 0,
    "optimizer__learning_rate": 0.4,
    "optimizer__warmup_steps": 4,
    "train__ema_decay": 0.5,
}
BEST, END = 3, 5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dump, and the run ``whole`` that ended by its patience."""
    folder = tmp_path_factory.mktemp("made")
    small.write_dump(folder / "dumps")
    trained(folder, "whole")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of them that a test may change."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def trained(folder: Path, name: str = "small", **changes: Any) -> dict[str, Any]:
    """The last checkpoint of a run that gets worse."""
    train(small.settings(folder, run__name=name, **{**WORSENING, **changes}))
    return checkpoint(folder, name)


def curve(folder: Path, name: str = "small") -> list[tuple[int, float]]:
    return [(line["step"], line["val/nelbo"]) for line in scalars(folder, name) if "val/nelbo" in line]


def finished(folder: Path, name: str = "small") -> dict[str, Any]:
    return load_chosen(CheckpointStore(folder / "runs" / name / "checkpoints")).as_dict()


def test_a_run_ends_when_its_evaluations_get_no_better(folder: Path) -> None:
    last = trained(folder, val__iw_samples=2)
    *steps, (chosen, nelbo) = curve(folder)
    assert [step for step, _ in steps] == list(range(1, END + 1))
    assert min(steps, key=lambda pair: pair[1])[0] == BEST
    assert (chosen, nelbo) == steps[BEST - 1], "the best weights are evaluated again, with the bound"
    bounds = [line["step"] for line in scalars(folder, "small") if "val/iw_bound" in line]
    assert bounds == [BEST]
    assert (last["state"]["step"], last["state"]["chosen_step"]) == (END, BEST)
    assert read_json(folder / "runs" / "small" / "status.json")["state"] == "finished"


def test_the_finished_run_goes_by_its_best_weights(folder: Path) -> None:
    last, best = checkpoint(folder, "whole"), finished(folder, "whole")
    assert best["state"]["step"] == BEST
    assert not torch.equal(last["model"]["head.weight"], best["model"]["head.weight"])
    assert_same_bits(best, CheckpointStore(folder / "runs" / "whole" / "checkpoints").load("best"))
    for which, step in (("last", BEST), ("best", BEST), (str(END), END)):
        synthesize(small.settings(folder, run__name="whole", synthesis__checkpoint=which), ["generation"])
        results = folder / "runs" / "whole" / "synthesis" / "generation"
        assert read_json(results / "metrics.json")["step"] == step


def test_other_runs_begin_with_its_best_weights(folder: Path) -> None:
    train(small.settings(folder, run__name="tuned", train__initial_run="whole", train__steps=1, val__every=0,
                         optimizer__learning_rate=1e-30, train__ema_decay=0.0, loss__beta=1.0))  # fmt: skip
    assert torch.equal(
        checkpoint(folder, "tuned")["model"]["head.weight"], finished(folder, "whole")["ema"]["head.weight"]
    )


def test_a_run_that_reaches_its_last_step_goes_by_its_best_weights_too(folder: Path) -> None:
    last = trained(folder, train__steps=END, val__patience=9)
    assert (last["state"]["step"], last["state"]["chosen_step"]) == (END, BEST)
    improving = {"train__steps": 2, "optimizer__learning_rate": 0.03, "optimizer__warmup_steps": 0}
    assert trained(folder, "better", **improving)["state"]["chosen_step"] == 2
    assert CheckpointStore(folder / "runs" / "better" / "checkpoints").load("best")["state"]["step"] == 2


def test_without_patience_a_run_goes_on_to_its_last_step(folder: Path) -> None:
    last = trained(folder, val__patience=0, train__steps=END + 1)
    assert (last["state"]["step"], last["state"]["chosen_step"]) == (END + 1, 0)
    assert finished(folder)["state"]["step"] == END + 1
    assert [step for step, _ in curve(folder)] == list(range(1, END + 2))


def test_repeating_a_finished_run_shows_its_result_and_trains_no_more(folder: Path, capsys: Any) -> None:
    first, numbers = checkpoint(folder, "whole"), scalars(folder, "whole")
    assert_same_bits(first, trained(folder, "whole"))
    assert scalars(folder, "whole") == numbers
    shown = capsys.readouterr().out
    assert f"{END} of 30: ended by [val] patience = 2" in shown
    assert f"at step {BEST}, whose weights the run goes by" in shown


def test_damaged_best_weights_are_named_with_what_can_be_done(folder: Path) -> None:
    trained(folder, "whole")
    last = checkpoint(folder, "whole")
    last["state"]["chosen_step"] = 0  # as a kill before the last evaluation leaves it
    store = CheckpointStore(folder / "runs" / "whole" / "checkpoints", keep=9)
    store.save(END, last)
    store.wait()
    best = store.folder / f"step_{BEST:08d}.pt"
    best.write_bytes(best.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"{best.name}: damaged.*\[val\] patience = 0 trains on without them"):
        trained(folder, "whole")
    assert trained(folder, "whole", val__patience=0, train__steps=END + 2)["state"]["step"] == END + 2


@pytest.mark.parametrize("patience", [3, 0])
def test_more_patience_continues_to_the_bit(folder: Path, patience: int) -> None:
    asked = {"val__patience": patience, "train__steps": 8}
    parts = trained(folder, "whole", **asked)
    at_once = trained(folder, "at_once", **asked)
    assert at_once["state"]["step"] > END
    for key in ("model", "ema", "optimizer", "state"):
        assert_same_bits(at_once[key], parts[key], key)


# While it trains; in the evaluation that is the last; in that of the chosen weights.
@pytest.mark.parametrize("asked", [9, 17, 19, 20, 22])
def test_a_stop_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, asked: int) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, asked)
        with pytest.raises(Preempted):
            trained(folder, "parts")
    assert_same_bits(checkpoint(folder, "whole"), trained(folder, "parts"))
    assert scalars(folder, "whole") == scalars(folder, "parts")


def broken(what: str) -> Callable[..., Any]:
    def fail(*args: Any, **keywords: Any) -> Any:
        raise KeyboardInterrupt(what)

    return fail


@pytest.mark.parametrize("place", ["_choose_best", "load", "save"])
def test_a_kill_around_the_end_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Before the best weights are looked for, while they are, and before the choice is on disk."""
    with monkeypatch.context() as patch:
        if place == "load":
            patch.setattr(CheckpointStore, "load", broken(place))
        elif place == "save":
            save = loop.save
            patch.setattr(loop, "save", lambda run, is_best=False: broken(place)() if run.state.chosen_step else save(
                run, is_best))  # fmt: skip
        else:
            patch.setattr(loop, place, broken(place))
        with pytest.raises(KeyboardInterrupt):
            trained(folder, "parts")
    assert checkpoint(folder, "parts")["state"]["chosen_step"] == 0
    assert_same_bits(checkpoint(folder, "whole"), trained(folder, "parts"))
    assert scalars(folder, "whole") == scalars(folder, "parts"), (
        "an evaluation whose choice was not on disk counts once"
    )


def test_a_kill_at_the_end_of_a_run_that_is_at_its_best(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the last evaluation and that of the chosen weights are of one step."""
    improving = {"train__steps": 2, "optimizer__learning_rate": 0.03, "optimizer__warmup_steps": 0}
    assert trained(folder, "better", **improving)["state"]["chosen_step"] == 2
    save = loop.save
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save", lambda run, is_best=False: broken("save")() if run.state.chosen_step else save(
            run, is_best))  # fmt: skip
        with pytest.raises(KeyboardInterrupt):
            trained(folder, "parts", **improving)
    assert [step for step, _ in curve(folder, "parts")] == [1, 2, 2]
    trained(folder, "parts", **improving)
    assert scalars(folder, "better") == scalars(folder, "parts")


def test_nan_is_no_improvement(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without a single good evaluation ends too, and is not called finished."""
    nan = property(lambda evaluation: float("nan"))
    monkeypatch.setattr("lvae_torch.elbo.evaluation.Evaluation.nelbo", nan)
    with pytest.raises(NumericalError, match="the last evaluation is not finite"):
        trained(folder)
    assert read_json(folder / "runs" / "small" / "status.json")["state"] == "failed"


def test_patience_needs_evaluations(tmp_path: Path) -> None:
    with pytest.raises(CfgError, match=r"\[val\] patience = 2 counts evaluations, but every = 0 has but one"):
        load_text(small.CFG, "a.cfg", ["val.patience=2", "val.every=0"])


@pytest.mark.slow
def test_two_ranks_end_at_one_step(folder: Path) -> None:
    """They agree, and the same command repeated has nothing to do."""
    for _ in range(2):
        result = run(command(folder, ranks=2, name="two", **WORSENING))
        assert result.returncode == 0, result.stderr
        assert "ended by [val] patience = 2" in result.stdout
    state = checkpoint(folder, "two")["state"]
    assert state["step"] == state["chosen_step"] + 2
