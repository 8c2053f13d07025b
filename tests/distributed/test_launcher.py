"""Nobody outlives the one who started it: workers of torchrun and commands of ours, also when they hang."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lvae_torch.distributed.launcher import STARTED_BY, TORCHRUN, is_gone

PARENT = """
import os, subprocess, sys
environment = os.environ | {"launcher": {"STARTED_BY": str(os.getpid())}, "torchrun": {"TORCHRUN": "1"}, "shell": {}}[sys.argv[1]]
child = subprocess.Popen([sys.executable, "-c", sys.argv[2]], env=environment, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
""".replace('"STARTED_BY"', repr(STARTED_BY)).replace('"TORCHRUN"', repr(TORCHRUN))  # noqa: E501
CHILD = """
import os, time
from lvae_torch.distributed import launcher
{change}
launcher.end_with_launcher()
print("ready", flush=True)
time.sleep(60)
"""
BY_LOOKING = "del os.pidfd_open; launcher.LOOK = 0.05"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); launcher.PATIENCE = 0.3"


def orphan(repository: Path, started_by: str, change: str = "") -> int:
    """A child whose parent was killed."""
    command = [sys.executable, "-c", PARENT, started_by, CHILD.format(change=change)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not is_gone(child)
        parent.kill()
    return child


def ends(process: int, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if is_gone(process):
            return True
        time.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    return False


@pytest.mark.parametrize("started_by", ["torchrun", "launcher"])
@pytest.mark.parametrize("change", ["", BY_LOOKING, DEAF], ids=["told by the system", "by looking", "deaf"])
def test_a_process_ends_with_what_started_it(repository: Path, started_by: str, change: str) -> None:
    assert ends(orphan(repository, started_by, change))


def test_what_a_person_started_lives_on(repository: Path) -> None:
    """A shell may go: so do people who use nohup."""
    assert not ends(orphan(repository, "shell"), seconds=1)


def test_one_whose_launcher_was_gone_before_it_could_look(repository: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    environment = os.environ | {STARTED_BY: str(dead.pid)}
    command = [sys.executable, "-c", CHILD.format(change="")]
    result = subprocess.run(command, env=environment, cwd=repository, capture_output=True, text=True, timeout=30)
    assert result.returncode == -signal.SIGTERM
    assert f"what started it (process {dead.pid}) is gone" in result.stderr


def test_a_process_that_ended_is_gone_also_where_nobody_took_note() -> None:
    process = subprocess.Popen(["true"])
    assert ends(process.pid), "a zombie"
    process.wait()
    assert is_gone(process.pid) and not is_gone(os.getpid())
