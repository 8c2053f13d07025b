"""Keeps ``status.json`` correct however a run ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from lvae_torch.distributed.processes import Processes
from lvae_torch.errors import DataError, Preempted
from lvae_torch.runs.folder import RunFolder, RunState


@contextmanager
def kept_status(
    folder: RunFolder, processes: Processes, step: Callable[[], int], finish_saving: Callable[[], None]
) -> Iterator[None]:
    """The status is ``running`` inside, and afterwards ``finished``, ``preempted`` or ``failed``; rank 0 writes.

    Args:
        step: returns the number of steps taken so far.
        finish_saving: waits until everything saved is on disk.
    Raises:
        LostRank: in place of the error that the loss of another rank raised here.
    """

    def write(state: RunState, message: str = "") -> None:
        if processes.is_main:
            folder.write_status(state, step(), message)

    def write_end(state: RunState, message: str) -> None:
        with suppress(DataError):  # a full disk must not hide why the run ended
            write(state, message)

    write("running")
    try:
        try:
            yield
        finally:
            finish_saving()
    except Preempted as reason:
        write_end("preempted", str(reason))
        raise
    except BaseException as reason:
        lost = processes.find_lost(reason)
        write_end("failed", f"{type(lost or reason).__name__}: {lost or reason}")
        if lost is not None:
            raise lost from reason
        raise
    write("finished")
