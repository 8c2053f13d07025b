"""A stop is heard at once where there is nothing to save, and between passes where there is."""

import signal
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import small
import torch

from lvae_torch.data.run_data import RunData
from lvae_torch.distributed.processes import Processes
from lvae_torch.distributed.signals import heard_at_once
from lvae_torch.distributed.stopping import StopRequest
from lvae_torch.elbo.evaluator import Evaluator
from lvae_torch.errors import Preempted
from lvae_torch.training.flat import FlatParameters

ALONE = Processes(0, 1, torch.device("cpu"))
COMMAND = """
import signal, sys, threading, time
from lvae_torch.cli import main
from lvae_torch.distributed import signals
signals.GRACE = {grace}
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have set it aside
begun = threading.Event()
def command(argv):
    {before}
    try:
        print("ready", flush=True)
        begun.set()
        time.sleep(60)
    finally:
        print("tidied", flush=True)
main(command, [])
"""
HANGS = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1})"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1], ids=lambda n: n.name)
@pytest.mark.parametrize(("before", "tidied"), [("pass", "tidied\n"), (HANGS, "")], ids=["works", "hangs"])
def test_a_command_stops(repository: Path, number: signal.Signals, before: str, tidied: str) -> None:
    """Also one that waits where no signal is looked at, as in a library (here the main thread cannot be woken)."""
    command = [sys.executable, "-c", COMMAND.format(before=before, grace=60 if tidied else 0.5)]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=repository, **pipes) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        if not tidied:
            time.sleep(1.0)  # until it waits inside the library: between two lines of Python it would hear the signal
        process.send_signal(number)
        out, errors = process.communicate(timeout=30)
    assert (process.returncode, out) == (75, tidied), errors
    assert f"stopped by {number.name}" in errors and "Traceback" not in errors


def test_an_interrupt_that_a_script_set_aside_stays_so() -> None:
    """As of a command that was begun with & and whose terminal is used for something else."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with heard_at_once():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_that_another_thread_gets_ends_the_wait(repository: Path) -> None:
    """The main thread sleeps on: Python's own handler waits for it, and without a second signal for ever."""
    kill = "(begun.wait(), time.sleep(0.5), signal.pthread_kill(threading.get_ident(), signal.SIGTERM))"
    before = f"threading.Thread(target=lambda: {kill}).start()"
    command = [sys.executable, "-c", COMMAND.format(before=before, grace=60)]
    ended = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=50)
    assert (ended.returncode, ended.stdout) == (75, "ready\ntidied\n"), ended.stderr
    assert "stopped by SIGTERM" in ended.stderr and "Traceback" not in ended.stderr


def evaluator(folder: Path, stop: StopRequest, **overrides: Any) -> Evaluator:
    small.write_dump(folder / "dumps")
    settings = small.settings(folder, val__batch_size=5, **overrides)
    data = RunData.of(settings.data, settings.train.batch_size, settings.run.seed)
    return Evaluator(settings.val, small.model().eval(), data, ALONE, stop, seed=3)


def test_a_stop_inside_a_bound_is_heard_after_the_pass(tmp_path: Path) -> None:
    stop = StopRequest(ALONE)
    evaluate = evaluator(tmp_path, stop, val__iw_samples=10**6)
    told: list[int] = []

    def tell(phase: str, done: int, total: int) -> None:
        assert phase == "evaluating" and total == 17
        told.append(done)
        stop.signal_name = "SIGTERM" if len(told) == 4 else ""

    evaluate.tell = tell
    began = time.monotonic()
    with pytest.raises(Preempted, match="stopped by SIGTERM"):
        evaluate(True, "step 1")
    assert len(told) == 4 and time.monotonic() - began < 20
    assert evaluate.unfinished is None, "not one batch was done"


@pytest.mark.parametrize("stop_at", [6, 11, 17])
def test_an_interrupted_evaluation_goes_on_to_the_bit(tmp_path: Path, stop_at: int) -> None:
    """From the last whole batch: 17 images in batches of 5, each with the ELBO's pass and 10 of the bound."""
    stop = StopRequest(ALONE)
    evaluate = evaluator(tmp_path, stop, val__iw_samples=10)
    whole = evaluate(True, "step 1").scalars(64)
    passes: list[int] = []

    def tell(phase: str, done: int, total: int) -> None:
        passes.append(done)
        stop.signal_name = "SIGTERM" if len(passes) == 1 + stop_at else ""

    evaluate.tell = tell
    with pytest.raises(Preempted):
        evaluate(True, "step 1")
    n_done = 0 if evaluate.unfinished is None else evaluate.unfinished["n_batches"][0]
    assert n_done == (stop_at - 1) // 11
    stop.signal_name, evaluate.tell = "", lambda phase, done, total: passes.append(done)
    unfinished, n_before = evaluate.unfinished, len(passes)
    assert evaluate(True, "step 1").scalars(64) == whole
    if n_done:
        assert passes[n_before] == 5 * n_done, "it began anew"
        evaluate.unfinished = unfinished
        passes.clear()
        assert evaluate(True, "step 2").scalars(64) == whole and passes[0] == 0, "of other weights it begins anew"


@pytest.mark.parametrize("change", ["weights", "as_published", "training batch"])
def test_sums_of_another_evaluation_are_left_alone(tmp_path: Path, change: str) -> None:
    """What may change between two starts: whether weights are averaged, what is scored, of what batch norm knows."""
    stop = StopRequest(ALONE)
    first, then = (
        evaluator(tmp_path, stop, val__batch_norm="reestimated", **more)
        for more in (
            {"val__as_published": True, "train__batch_size": 8},
            {
                "val__as_published": change != "as_published",
                "train__batch_size": 4 if change == "training batch" else 8,
            },
        )
    )
    model = small.model() if change == "training batch" else small.very_deep(n_levels=256)
    first.model, first.is_averaged = model.eval(), True
    then.model, then.is_averaged = deepcopy(first.model), change != "weights"
    if change == "weights":
        FlatParameters(then.model).vector.data.mul_(0.9)
    whole = then(True, "step 1").scalars(64)

    def tell(phase: str, done: int, total: int) -> None:
        stop.signal_name = "SIGTERM" if phase == "evaluating" and done >= 10 else ""

    first.tell = tell
    with pytest.raises(Preempted):
        first(True, "step 1")
    stop.signal_name, then.unfinished = "", first.unfinished
    assert first.unfinished is not None and then(True, "step 1").scalars(64) == whole


def test_re_estimation_hears_a_stop_and_leaves_the_statistics(tmp_path: Path) -> None:
    stop = StopRequest(ALONE)
    evaluate = evaluator(tmp_path, stop, val__batch_norm="reestimated")
    before = {name: buffer.clone() for name, buffer in evaluate.model.named_buffers()}
    told: list[tuple[str, int, int]] = []

    def tell(phase: str, done: int, total: int) -> None:
        told.append((phase, done, total))
        stop.signal_name = "SIGTERM"

    evaluate.tell = tell
    with pytest.raises(Preempted):
        evaluate(False, "step 1")
    assert told == [("re-estimating batch norm", 1, 5)]
    assert all(torch.equal(before[name], buffer) for name, buffer in evaluate.model.named_buffers())
