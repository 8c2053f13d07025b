"""Processes that tests start: alike however the tests were started, and gone when their test is over."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OF_A_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
"""Environment variables that would make these tests a part of somebody else's run."""
_started: "list[subprocess.Popen[Any]]" = []


def prepare() -> None:
    """From now on, subprocesses are known here, and hear all signals: nohup and ``&`` have some of them ignored."""
    for name in (*OF_A_LAUNCHER, "LVAE_STARTED_BY"):
        os.environ.pop(name, None)
    begin = subprocess.Popen.__init__

    def known(self: "subprocess.Popen[Any]", *arguments: Any, **keywords: Any) -> None:
        with _hearing():
            begin(self, *arguments, **keywords)
        _started.append(self)

    subprocess.Popen.__init__ = known  # type: ignore[method-assign]


@contextmanager
def none_left() -> Iterator[None]:
    """Inside, processes may be started; those that are still there afterwards are killed, and told of."""
    before = {id(process) for process in _alive()}
    try:
        yield
    finally:
        left = [process for process in _alive() if id(process) not in before]
        for process in left:
            _kill(process)
        _started[:] = _alive()
    assert not left, f"left behind, and killed: {[process.args for process in left]}"


@contextmanager
def _hearing() -> Iterator[None]:
    """Inside, no signal is ignored, so that a child ignores none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kinds = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1)
    ignored = [number for number in kinds if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def _alive() -> "list[subprocess.Popen[Any]]":
    return [process for process in _started if process.poll() is None]


def _kill(process: "subprocess.Popen[Any]") -> None:
    for pid in [process.pid, *_descendants(process.pid)]:  # a parent that saw its children end might end well
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait(timeout=30)


def _descendants(ancestor: int) -> list[int]:
    """Children and theirs; none where the system has no /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # gone already
            continue
    found = [ancestor]
    for pid in found:  # it grows while it is walked
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]
