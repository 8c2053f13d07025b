"""Runs as processes of their own: several ranks, signals, a closed terminal, kills, and how they end."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import small
from running import REPOSITORY, assert_same_bits, checkpoint, checkpoints_of_one_and_two_ranks, command, run, scalars
from torch.testing import assert_close

from lvae_torch.distributed.stopping import stop_signals
from lvae_torch.files import read_json

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


def logged(folder: Path, name: str) -> list[str]:
    """Lines of the log, each with its time."""
    path = folder / "runs" / name / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def wait_for_step(folder: Path, name: str, process: "subprocess.Popen[str]", known: Sequence[str] = ()) -> None:
    """Until the run has logged steps beside those that are known."""
    deadline = time.monotonic() + 250
    while len(set(logged(folder, name)) - set(known)) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


LONG = {"train__log_every": 1, "train__checkpoint_every": 3, "val__every": 0, "val__images": 0}
ENDLESS = LONG | {"train__steps": 10**6}  # so that it is stopped before its end, however late that is


@pytest.mark.parametrize("ranks", [1, 2])
def test_sigterm_saves_and_the_same_command_continues_to_the_bit(folder: Path, ranks: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    line = command(folder, ranks=ranks, name="parts", **ENDLESS)
    process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_step(folder, "parts", process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == (75 if ranks == 1 else 1), errors  # torchrun has a status of its own
    status = read_json(folder / "runs" / "parts" / "status.json")
    assert status["state"] == "preempted"
    assert status["step"] > 0
    for name in ("parts", "whole"):
        result = run(command(folder, ranks=ranks, name=name, **LONG, train__steps=status["step"] + 5))
        assert result.returncode == 0, result.stderr
    assert_same_bits(checkpoint(folder, "whole"), checkpoint(folder, "parts"))


def test_a_closed_terminal_saves_and_ends(folder: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    ours, theirs = os.openpty()
    reader = subprocess.Popen(["cat"], stdin=ours, stdout=subprocess.DEVNULL)  # the person at the terminal
    line = ["setsid", "--ctty", *command(folder, name="parts", **ENDLESS)]
    process = subprocess.Popen(line, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, text=True)
    os.close(theirs)
    wait_for_step(folder, "parts", process)
    os.close(ours)
    reader.kill()
    reader.wait()
    assert process.wait(timeout=200) == 75
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
    line = command(folder, name="parts", **ENDLESS)
    for pause in (0.0, 0.1):
        known = logged(folder, "parts")
        process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for_step(folder, "parts", process, known)
        time.sleep(pause)
        process.kill()
        process.communicate()
    steps = len(logged(folder, "parts")) + 5
    for name in ("parts", "whole"):
        result = run(command(folder, name=name, **LONG, train__steps=steps))
        assert result.returncode == 0, result.stderr
    assert_same_bits(checkpoint(folder, "whole"), checkpoint(folder, "parts"))


@pytest.mark.parametrize(
    ("overrides", "status", "message"),
    [
        ({"data__dataset": "nothing"}, 3, "lvae data DATASET --name nothing"),
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
