"""What the nursery's children can be made to suffer: each function here changes the process that calls it."""

import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

AUDITED = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


def _before_operations(folder: str, act: Callable[[str, str], None]) -> None:
    """Call ``act(operation, path)`` before every file operation below ``folder``, writes and syncs included."""

    def told(event: str, arguments: tuple[Any, ...]) -> None:
        if event in AUDITED and arguments and str(arguments[0]).startswith(folder):
            act(_kind(event, arguments), " -> ".join(str(a) for a in arguments[:2] if isinstance(a, str | Path)))

    sys.addaudithook(told)
    sync = os.fsync

    def fsync(handle: int) -> None:
        path = str(Path(f"/proc/self/fd/{handle}").readlink())
        if path.startswith(folder):
            act("fsync", path)
        sync(handle)

    os.fsync = fsync
    _before_writes(act)


def _kind(event: str, arguments: tuple[Any, ...]) -> str:
    if event != "open":
        return event.removeprefix("os.")
    return "read" if arguments[1] in ("r", "rb") or (arguments[1] is None and not arguments[2] & os.O_WRONLY) else event


def _before_writes(act: Callable[[str, str], None]) -> None:
    from lvae_torch.runs.state_file import HashingFile

    write = HashingFile.write

    def writing(self: Any, data: Any) -> int:
        act("write", self._file.name.__str__())
        return write(self, data)

    HashingFile.write = writing  # type: ignore[method-assign]


def die_at(folder: str, n: int) -> None:
    """End, as by a kill, before the n-th file operation below ``folder``."""
    count = 0

    def act(operation: str, path: str) -> None:
        nonlocal count
        count += 1
        if count == n:
            os._exit(9)

    _before_operations(folder, act)


def fail_at(folder: str, n: int, number: int, lasting: bool) -> None:
    """Let the n-th operation fail that changes something below ``folder``; if ``lasting``, all after it too.

    With ``lasting`` the disk stays full, or broken; removing and renaming still work on a full one.
    """
    count = 0

    def act(operation: str, path: str) -> None:
        nonlocal count
        if operation in ("read", "remove", "rmdir") or (count >= n and operation == "rename"):
            return
        count += 1
        if count == n or (lasting and count > n):
            os.write(2, f"injected: {operation} {path}\n".encode())
            raise OSError(number, os.strerror(number), path)

    _before_operations(folder, act)


def record(folder: str, log: str) -> None:
    """Write every file operation below ``folder`` into ``log``, a line each: operation, tab, path."""
    handle = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    _before_operations(folder, lambda operation, path: os.write(handle, f"{operation}\t{path}\n".encode()) and None)


def slow_saves(seconds: float) -> None:
    """Each checkpoint takes so long to write."""
    from lvae_torch.runs.checkpoints import CheckpointStore

    write = CheckpointStore._write

    def slowly(self: Any, *arguments: Any) -> None:
        time.sleep(seconds)
        write(self, *arguments)

    CheckpointStore._write = slowly  # type: ignore[method-assign]


def clock(offset: float) -> None:
    """The clock of the wall shows another time; that of monotonic intervals goes on."""
    now = time.time
    time.time = lambda: now() + offset


def jumping_clock(seconds: float) -> None:
    """The clock of the wall goes forward and back by so much, each time that it is looked at."""
    now, looks = time.time, itertools.count()
    time.time = lambda: now() + (seconds if next(looks) % 2 else -seconds)


def bad_batches(steps: list[int], value: float) -> None:
    """Of these steps' images, the first pixel is ``value``."""
    from lvae_torch.training.step import TrainStep

    call = TrainStep.__call__

    def hurt(self: Any, raw: Any, step: int, *labels: Any) -> None:
        preprocess = self.preprocess
        if step in steps:

            def damaged(batch: Any) -> Any:
                x = preprocess(batch)
                x.view(-1)[0] = value
                return x

            self.preprocess = damaged
        call(self, raw, step, *labels)
        self.preprocess = preprocess

    TrainStep.__call__ = hurt  # type: ignore[method-assign]


def spikes(steps: list[int], factor: float) -> None:
    """The gradients of these steps are so many times too large."""
    from lvae_torch.training.step import TrainStep

    backward, set_scalars = TrainStep._backward, TrainStep._set_scalars
    begun: list[int] = []

    def noted(self: Any, step: int) -> None:
        begun.append(step)
        set_scalars(self, step)

    def steep(self: Any, *batch: Any) -> Any:
        result = backward(self, *batch)
        if begun[-1] in steps:
            self.flat.gradient.mul_(factor)
        return result

    TrainStep._set_scalars = noted  # type: ignore[method-assign]
    TrainStep._backward = steep  # type: ignore[method-assign]


def tell_batches(log: str) -> None:
    """Write the images of each step that this rank takes into ``log``: step, tab, their numbers."""
    from lvae_torch.data import loader

    share = loader.share
    steps: list[int] = []
    batch = loader.TrainingOrder.batch

    def asked(self: Any, step: int) -> Any:
        steps.append(step)
        return batch(self, step)

    def shared(indices: Any, rank: int, world: int) -> Any:
        own = share(indices, rank, world)
        with open(log, "a") as file:
            file.write(f"{steps[-1]}\t{rank}\t{' '.join(map(str, own.tolist()))}\n")
        return own

    loader.TrainingOrder.batch = asked  # type: ignore[method-assign]
    loader.share = shared


def tell_resources(log: str, every: int) -> None:
    """Write into ``log``, every so many steps: step, resident memory in KiB, open files, threads."""
    from lvae_torch.training.step import TrainStep

    call = TrainStep.__call__

    def watched(self: Any, raw: Any, step: int, *labels: Any) -> None:
        call(self, raw, step, *labels)
        if step % every == every - 1:
            status = Path("/proc/self/status").read_text()
            numbers = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if len(line.split()) > 1}
            n_files = len(list(Path("/proc/self/fd").iterdir()))
            with open(log, "a") as file:
                file.write(f"{step + 1} {numbers['VmRSS']} {n_files} {numbers['Threads']}\n")

    TrainStep.__call__ = watched  # type: ignore[method-assign]
