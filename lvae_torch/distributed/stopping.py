"""Stops a run on a signal: all ranks leave after the same step, with everything saved."""

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from types import FrameType
from typing import TypeVar

import torch
import torch.distributed as dist

from lvae_torch.distributed.processes import Processes
from lvae_torch.errors import Preempted

T = TypeVar("T")


def stop_signals() -> set[signal.Signals]:
    """SIGTERM, SIGINT, SIGUSR1, and SIGHUP (the terminal is gone) unless nohup ignores it."""
    asked = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1}
    return asked if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else asked | {signal.SIGHUP}


class StopRequest:
    """A wish to stop that one rank has and all ranks agree on. They exchange it on the CPU during the step."""

    def __init__(self, processes: Processes) -> None:
        self._alone = processes.world == 1
        self.signal_name = ""
        self._flag = torch.zeros(1, dtype=torch.int32)
        self._work: dist.Work | None = None

    def ask(self) -> None:
        """Begin to ask all ranks whether one wants to stop."""
        if not self._alone:
            self._flag.fill_(1 if self.signal_name else 0)
            self._work = dist.all_reduce(self._flag, op=dist.ReduceOp.MAX, async_op=True)

    def agreed(self) -> bool:
        """The answer to the last ``ask``, the same on every rank."""
        if self._alone:
            return bool(self.signal_name)
        assert self._work is not None, "agreed() before ask()"
        self._work.wait()
        return bool(self._flag.numpy()[0])  # a CPU tensor: the host does not wait for a GPU

    def watch(self, batches: Iterable[T], rounds: int) -> Iterator[T]:
        """Yield this rank's ``batches`` and ask after each; ``rounds`` is the largest number that any rank has.

        Raises:
            Preempted: on every rank after the same round.
        """
        own = iter(batches)
        for _ in range(rounds):
            self.ask()
            yield from islice(own, 1)
            if self.agreed():
                raise Preempted(f"stopped by {self.reason}.")

    @property
    def reason(self) -> str:
        return self.signal_name or "a signal to another rank"

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Turn each of ``stop_signals`` into a request; a second SIGINT stops at once."""

        def remember(number: int, frame: FrameType | None) -> None:
            if self.signal_name and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.signal_name = signal.Signals(number).name

        before = {number: signal.signal(number, remember) for number in stop_signals()}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
