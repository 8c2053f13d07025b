"""A process that has imported everything and forks a child for each command: hundreds of starts and kills become cheap.

The tests' own process cannot fork trainers: once it has gone backward through a model, no child of it may. This file,
run as a script, is the process that forks; it never trains itself.
"""

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
REPOSITORY = HERE.parents[2]
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
HUNG = 300.0
"""Seconds after which a command hangs, also on a machine where two starts take a minute."""
Patch = tuple[Any, ...]
"""Name of a function of ``patches``, and its arguments."""


class Nursery:
    """Starts children; a context manager."""

    def __enter__(self) -> "Nursery":
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._answer() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()  # it ends, and its children with it
        self._process.wait(30)
        self._process.stdout.close()

    def start(
        self,
        command: str,
        arguments: Sequence[str],
        log: Path,
        patches: Sequence[Patch] = (),
        environment: Mapping[str, str] | None = None,
    ) -> "Child":
        """``python -m lvae_torch.<command> <arguments>`` with some of its functions replaced; says into ``log``."""
        request = {"command": command, "arguments": list(arguments), "log": str(log), "patches": list(patches)}
        return Child(self, self.ask({**request, "environment": dict(environment or {})}), log)

    def ask(self, request: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@dataclass(frozen=True)
class Child:
    """A command that runs."""

    nursery: Nursery
    pid: int
    log: Path

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)  # until it is waited for, the number is its own

    def wait(self, seconds: float = HUNG) -> int:
        """Its exit status, or minus the number of the signal that ended it."""
        status = self.nursery.ask({"wait": self.pid, "seconds": seconds})
        assert status is not None, f"still there after {seconds} s: {self.said}"
        return int(status)

    def kill(self) -> int:
        """End it by ``kill -9``, whatever it is doing."""
        self.send(signal.SIGKILL)
        return self.wait()

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


def _serve() -> None:
    _warm_up()
    _reply("ready")
    for line in sys.stdin:
        request = json.loads(line)
        _reply(_wait(request["wait"], request["seconds"]) if "wait" in request else _fork(request))


def _reply(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _warm_up() -> None:
    """Import what commands import late; no gradient is computed, and no thread is left."""
    import torch

    torch.set_num_threads(1)
    for name in ("train", "synthesize", "reporting.figures"):
        importlib.import_module(f"lvae_torch.{name}")
    for name in ("matplotlib.figure", "tensorboard.summary.writer.record_writer", "torch.utils.tensorboard.summary"):
        importlib.import_module(name)
    parameter = torch.nn.Parameter(torch.ones(1))
    parameter.grad = torch.ones(1)
    torch.optim.Adamax([parameter]).step()  # imports the compiler


def _fork(request: Mapping[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    status = 1
    try:
        status = _run(request)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _run(request: Mapping[str, Any]) -> int:
    import patches

    from lvae_torch.cli import main

    log = os.open(request["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ.update(request["environment"])
    for name, *arguments in request["patches"]:
        getattr(patches, name)(*arguments)
    try:
        main(importlib.import_module(f"lvae_torch.{request['command']}").command, request["arguments"])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _wait(pid: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


if __name__ == "__main__":
    _serve()
