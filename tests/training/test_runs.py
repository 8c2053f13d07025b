"""Whole runs: resume to the bit, and what is refused. Each run is a few tiny steps."""

from pathlib import Path
from typing import Any

import pytest
import small
from running import assert_same_bits, checkpoint, scalars, stop_at

from lvae_torch.errors import CfgError, DataError, NumericalError, Preempted
from lvae_torch.files import read_json
from lvae_torch.runs.folder import RunFolder
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train


@pytest.mark.parametrize("step", [0, 1, 2, 3, 5])
def test_a_stopped_run_continues_to_the_bit(folder: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """At any step: mid-epoch (four steps make one), with dropout, before and after evaluations and checkpoints."""
    train(small.settings(folder, run__name="whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(Preempted, match="stopped"):
            train(small.settings(folder, run__name="parts"))
    status = read_json(folder / "runs" / "parts" / "status.json")
    assert status["state"] == "preempted"
    train(small.settings(folder, run__name="parts"))
    assert read_json(folder / "runs" / "parts" / "status.json")["state"] == "finished"
    assert_same_bits(checkpoint(folder, "whole"), checkpoint(folder, "parts"))
    assert scalars(folder, "whole") == scalars(folder, "parts")


@pytest.mark.parametrize("switches", [
    {"train__ema_decay": 0.0, "optimizer__name": "adamw", "optimizer__schedule": "cosine"},
    {"train__accumulate": 2, "optimizer__clip_norm": 1.0, "optimizer__name": "radam", "data__on_device": True},
    {"train__activation_checkpointing": True, "loss__kl_estimate": "sampled", "train__precision": "bfloat16"},
    {"data__dataset": "grey", "data__binarize": "dynamic", "data__flip": True, "optimizer__name": "adam"},
], ids=lambda s: ",".join(f"{k}={v}" for k, v in s.items())[:60])  # fmt: skip
def test_every_switch_resumes_to_the_bit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, switches: dict[str, Any]
) -> None:
    small.write_dump(folder / "dumps", "grey", n_levels=256)
    train(small.settings(folder, run__name="whole", **switches))
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(Preempted):
            train(small.settings(folder, run__name="parts", **switches))
    train(small.settings(folder, run__name="parts", **switches))
    assert_same_bits(checkpoint(folder, "whole"), checkpoint(folder, "parts"))


def test_a_finished_run_goes_on_when_it_is_given_more_steps(folder: Path) -> None:
    train(small.settings(folder, run__name="whole", train__steps=6))
    train(small.settings(folder, run__name="parts", train__steps=4))
    train(small.settings(folder, run__name="parts", train__steps=6))
    whole, parts = checkpoint(folder, "whole"), checkpoint(folder, "parts")
    assert_same_bits(whole["model"], parts["model"])
    assert_same_bits(whole["optimizer"], parts["optimizer"])
    assert "[train] steps" in (folder / "runs" / "parts" / "changes.txt").read_text()


def test_an_interrupted_evaluation_is_repeated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(small.settings(folder, run__name="whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, 4)  # three steps, then the second round of the evaluation after them
        with pytest.raises(Preempted):
            train(small.settings(folder, run__name="parts"))
    assert read_json(folder / "runs" / "parts" / "status.json")["step"] == 3
    train(small.settings(folder, run__name="parts"))
    assert scalars(folder, "whole") == scalars(folder, "parts")


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_continues(folder: Path, capsys: Any) -> None:
    train(small.settings(folder, run__name="whole"))
    train(small.settings(folder, run__name="parts"))
    newest = max((folder / "runs" / "parts" / "checkpoints").glob("*.pt"))
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    train(small.settings(folder, run__name="parts"))
    assert "step_00000006.pt: damaged" in capsys.readouterr().err
    assert_same_bits(checkpoint(folder, "whole"), checkpoint(folder, "parts"))


def test_a_flipped_bit_in_the_dump_is_refused_unless_asked_not_to_look(folder: Path) -> None:
    train(small.settings(folder))
    path = folder / "dumps" / "small" / "test_00000.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"test_00000\.npy: its bytes differ"):
        train(small.settings(folder, train__steps=8))
    with pytest.raises(DataError, match=r"test_00000\.npy: its bytes differ"):
        synthesize(small.settings(folder), ["reconstruction"])
    train(small.settings(folder, train__steps=8, data__verify=False))


def test_a_status_that_cannot_be_written_hides_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(small.settings(folder, train__steps=2))
    stop_at(monkeypatch, 1)
    monkeypatch.setattr(RunFolder, "write_status", lambda self, state, *_, **__: state == "running" or _full())
    with pytest.raises(Preempted, match="stopped"):
        train(small.settings(folder))


def _full() -> None:
    raise DataError("no space")


def test_training_learns(folder: Path) -> None:
    train(small.settings(folder, train__steps=150, optimizer__learning_rate=1e-2, val__every=0, train__log_every=10))
    numbers = [line["train/nelbo"] for line in scalars(folder, "small") if "train/nelbo" in line]
    assert numbers[-1] < 0.6 * numbers[0]


@pytest.mark.parametrize(
    ("change", "key"),
    [({"model__n_filters": 8}, "n_filters"), ({"run__seed": 1}, "seed"), ({"data__flip": True}, "flip")],
)
def test_a_change_of_model_or_data_is_refused_with_a_table(folder: Path, change: dict[str, Any], key: str) -> None:
    train(small.settings(folder, train__steps=2))
    with pytest.raises(CfgError, match=rf"(?s)began with other settings.*{key}.*reset\.sh small"):
        train(small.settings(folder, train__steps=2, **change))


def test_another_dump_of_the_same_name_is_refused(folder: Path) -> None:
    train(small.settings(folder, train__steps=2))
    small.write_dump(folder / "dumps", n_train=40)
    with pytest.raises(DataError, match="not the one the run began with"):
        train(small.settings(folder, train__steps=4))


def test_endless_skipping_ends_with_advice(folder: Path) -> None:
    hopeless = {"optimizer__learning_rate": 1e9, "model__max_log_std": None, "loss__beta": 1.0}
    with pytest.raises(NumericalError, match=r"steps in a row were skipped.*Lower \[optimizer\] learning_rate"):
        train(small.settings(folder, optimizer__max_skips_in_a_row=3, **hopeless))
    assert read_json(folder / "runs" / "small" / "status.json")["state"] == "failed"


def test_a_batch_that_cannot_be_shared_out_is_refused(folder: Path) -> None:
    with pytest.raises(CfgError, match="does not divide batch_size"):
        small.settings(folder, train__accumulate=3)


def test_too_few_images_for_a_batch(folder: Path) -> None:
    with pytest.raises(DataError, match="fewer than"):
        train(small.settings(folder, train__batch_size=64))
