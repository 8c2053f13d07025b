"""A process that was started by torchrun, or by a command of ours, ends with it: nobody trains on as an orphan."""

import os
import select
import signal
import threading
import time
from pathlib import Path

from lvae_torch.errors import Preempted, say

STARTED_BY = "LVAE_STARTED_BY"
"""Environment variable with the number of the process that starts another one of ours, which shall end with it."""
TORCHRUN = "TORCHELASTIC_RUN_ID"  # torchrun sets it for its workers
PATIENCE = 25.0
"""Seconds from the launcher's end to ours, for what is to be saved."""
LOOK = 1.0  # seconds between looks, where the system does not tell of the end of a process


def launcher() -> int | None:
    """The process that this one ends with; None where a person, or a shell, started it."""
    if told := os.environ.get(STARTED_BY):
        return int(told)
    return os.getppid() if TORCHRUN in os.environ else None


def end_with_launcher() -> None:
    """From now on, the end of the launcher is a SIGTERM to this process, and 25 seconds later its end."""
    if (parent := launcher()) is not None:
        threading.Thread(target=_end_with, args=(parent,), name="launcher", daemon=True).start()


def is_gone(process: int) -> bool:
    """Whether a process of this host has ended, also if nobody has taken note of that yet."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:  # "123 (name) Z ...", where the name may hold anything
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # a system without /proc
        return False
    return state in "ZX"


def _end_with(parent: int) -> None:
    if not _is_reaper(parent):  # then it was gone before we could look
        _wait_for_end_of(parent)
    say(f"process {os.getpid()}: what started it (process {parent}) is gone, so it stops too.")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os._exit(Preempted.exit_status)


def _wait_for_end_of(parent: int) -> None:
    """Until another process has taken this one over."""
    try:
        ended = select.poll()
        ended.register(os.pidfd_open(parent), select.POLLIN)
    except (AttributeError, OSError):  # not Linux, or an old one, or a container that forbids it
        while os.getppid() == parent:
            time.sleep(LOOK)
    else:
        while os.getppid() == parent and not ended.poll(60_000):
            pass


def _is_reaper(process: int) -> bool:
    """Whether a process is the system's first one and no launcher: that takes over whoever lost its parent."""
    if process != 1:
        return False
    try:
        words = Path("/proc/1/cmdline").read_bytes()
    except OSError:
        return True
    return b"python" not in words and b"torch" not in words
