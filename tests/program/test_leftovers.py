"""The tests' own tidiness: signals that nohup and ``&`` have ignored, and processes that a failing test leaves."""

import signal
import subprocess
import sys
import time

import leftovers
import pytest
import torch

IGNORED = (
    "import signal; print([n.name for n in (signal.SIGHUP, signal.SIGINT) if signal.getsignal(n) == signal.SIG_IGN])"
)
PARENT = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"


@pytest.mark.parametrize("_turn", [1, 2])
def test_what_a_test_draws_is_the_same_whatever_ran_before(_turn: int) -> None:
    assert torch.equal(torch.randn(3), torch.randn(3, generator=torch.Generator().manual_seed(0)))


def test_a_child_hears_signals_that_these_tests_ignore() -> None:
    """As they do under ``nohup make test`` and in the background of a script."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGINT)}
    try:
        told = subprocess.run([sys.executable, "-c", IGNORED], capture_output=True, text=True, timeout=60).stdout
        assert all(signal.getsignal(number) == signal.SIG_IGN for number in before), "ours are as they were"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert told == "[]\n"


def test_what_a_failing_test_leaves_is_killed_with_its_children() -> None:
    from lvae_torch.distributed.launcher import is_gone

    with pytest.raises(ZeroDivisionError), leftovers.none_left():
        process = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        child = int(process.stdout.readline())
        raise ZeroDivisionError
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 30  # a signal is heard when its process has its turn
    while not is_gone(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert is_gone(child)


def test_a_test_that_leaves_a_process_fails() -> None:
    with pytest.raises(AssertionError, match=r"left behind, and killed: \[\['sleep', '60'\]\]"), leftovers.none_left():
        subprocess.Popen(["sleep", "60"])
