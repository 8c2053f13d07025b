"""Whole runs: resume to the bit, ranks, signals, kills, refusals. Each run is a few tiny steps."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import small
from running import assert_same_bits, checkpoint, scalars, stop_at
from torch.testing import assert_close

from lvae_torch.distributed.stopping import stop_signals
from lvae_torch.errors import CfgError, DataError, NumericalError, Preempted
from lvae_torch.files import read_json
from lvae_torch.runs.folder import RunFolder
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small.write_dump(tmp_path / "dumps")
    return tmp_path


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


def command(folder: Path, *, ranks: int = 1, name: str = "small", **overrides: Any) -> list[str]:
    """The command line of a training run, alone or under torchrun."""
    (folder / "small.cfg").write_text(small.CFG)
    sets = [part for item in small.override_list(folder, {"run__name": name, **overrides}) for part in ("--set", item)]
    launcher = [sys.executable]
    if ranks > 1:
        launcher += [
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--local-addr=127.0.0.1",
            f"--nproc_per_node={ranks}",
        ]
    return [*launcher, "-m", "lvae_torch.train", str(folder / "small.cfg"), *sets]


def run(arguments: list[str], **keywords: Any) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=200, **keywords)


def checkpoints_of_one_and_two_ranks(folder: Path, cfg: str, **overrides: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The checkpoints of runs "one" and "two", trained on one rank and on two: posterior means in place of samples."""
    script = (
        "import lvae_torch.training.step as s, lvae_torch.elbo.evaluation as e\n"
        "from lvae_torch.models.sources import posterior_mean\n"
        "s.posterior_sample = e.posterior_sample = posterior_mean\n"
        "from lvae_torch.cli import main\nfrom lvae_torch.train import command\nmain(command)\n"
    )
    (folder / "means.py").write_text(script)
    for name, ranks in (("one", 1), ("two", 2)):
        line = command(folder, ranks=ranks, name=name, **overrides)
        (folder / "small.cfg").write_text(cfg)
        at = line.index("lvae_torch.train")
        result = run([*line[: at - 1], str(folder / "means.py"), *line[at + 1 :]])
        assert result.returncode == 0, result.stderr
    return checkpoint(folder, "one"), checkpoint(folder, "two")


NORMS = {
    "train__sync_batch_norm": True, "val__batch_norm": "reestimated", "train__activation_checkpointing": True,
    "optimizer__eps": 1e-3,  # biases that batch norm cancels have gradients of rounding, and are to stay where they are
}  # fmt: skip


@pytest.mark.parametrize("norms", [{"model__batch_norm": False}, pytest.param(NORMS, marks=pytest.mark.slow)])
def test_two_ranks_compute_what_one_does(folder: Path, norms: dict[str, Any]) -> None:
    """Posterior means in place of samples, no dropout, no batch norm but over all ranks: the same global batch."""
    plain = {"model__dropout": 0.0, "model__max_log_std": 1e-6, "train__ema_decay": 0.0, **norms}
    one, two = checkpoints_of_one_and_two_ranks(folder, small.CFG, **plain)
    for name, tensor in one["model"].items():
        assert_close(tensor, two["model"][name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    for a, b in zip(scalars(folder, "one"), scalars(folder, "two"), strict=True):
        assert list(a) == list(b)
        for key, value in a.items():  # a number, or a list of them
            assert value == pytest.approx(b[key], rel=1e-3 if isinstance(value, list) else 1e-4, abs=1e-4), key


def wait_for_step(folder: Path, name: str, process: "subprocess.Popen[str]") -> None:
    """Until the run has logged a step."""
    path = folder / "runs" / name / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (path.exists() and path.read_text().count("\n") >= 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


LONG = {"train__steps": 60, "train__log_every": 1, "train__checkpoint_every": 3, "val__every": 0, "val__images": 0}


@pytest.mark.parametrize("ranks", [1, 2])
def test_sigterm_saves_and_the_same_command_continues_to_the_bit(folder: Path, ranks: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    line = command(folder, ranks=ranks, name="parts", **LONG)
    process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_step(folder, "parts", process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (75 if ranks == 1 else 1), errors  # torchrun has a status of its own
    status = read_json(folder / "runs" / "parts" / "status.json")
    assert status["state"] == "preempted"
    assert 0 < status["step"] < 60
    for name in ("parts", "whole"):
        result = run(command(folder, ranks=ranks, name=name, **LONG))
        assert result.returncode == 0, result.stderr
    assert_same_bits(checkpoint(folder, "whole"), checkpoint(folder, "parts"))


def test_a_closed_terminal_saves_and_ends(folder: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    ours, theirs = os.openpty()
    reader = subprocess.Popen(["cat"], stdin=ours, stdout=subprocess.DEVNULL)  # the person at the terminal
    line = ["setsid", "--ctty", *command(folder, name="parts", **LONG | {"train__steps": 10**6})]
    process = subprocess.Popen(line, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, text=True)
    os.close(theirs)
    wait_for_step(folder, "parts", process)
    os.close(ours)
    reader.kill()
    reader.wait()
    assert process.wait(timeout=60) == 75
    status = read_json(folder / "runs" / "parts" / "status.json")
    assert (status["state"], "SIGHUP" in status["message"]) == ("preempted", True)
    assert (folder / "runs" / "parts" / "checkpoints" / f"step_{status['step']:08d}.json").exists()


def test_what_nohup_started_does_not_listen_for_a_hang_up() -> None:
    own = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in stop_signals()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert signal.SIGHUP in stop_signals()
    finally:
        signal.signal(signal.SIGHUP, own)


def test_kill_at_any_moment_loses_nothing(folder: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    line = command(folder, name="parts", **LONG)
    for pause in (0.0, 0.1):
        process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for_step(folder, "parts", process)
        time.sleep(pause)
        process.kill()
        process.communicate()
    for name in ("parts", "whole"):
        result = run(command(folder, name=name, **LONG))
        assert result.returncode == 0, result.stderr
    assert_same_bits(checkpoint(folder, "whole"), checkpoint(folder, "parts"))


@pytest.mark.parametrize(
    ("overrides", "status", "message"),
    [
        ({"data__dataset": "nothing"}, 3, "python -m data_scripts DATASET --name nothing"),
        ({"train__stepz": 3}, 2, "Did you mean 'steps'"),
        ({"model__downsample": [5, 5]}, 2, "raise blocks_per_layer"),
        ({"run__name": "../elsewhere"}, 2, "name is '../elsewhere'"),
    ],
)
def test_what_a_user_gets_wrong_ends_in_one_message(
    folder: Path, overrides: dict[str, Any], status: int, message: str
) -> None:
    result = run(command(folder, **overrides))
    assert result.returncode == status
    assert message in result.stderr
    assert "Traceback" not in result.stderr
