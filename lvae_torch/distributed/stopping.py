"""Stops a run on a signal: all ranks leave after the same step, with everything saved."""

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

import torch
import torch.distributed as dist

from lvae_torch.distributed.processes import Processes
from lvae_torch.distributed.signals import stop_signals
from lvae_torch.errors import Preempted

T = TypeVar("T")
Tell = Callable[[int, int], object]
"""Told how much is done, and of how much."""


def nothing(done: int = 0, total: int = 0) -> None:
    """Nobody listens."""


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

    def rounds(self, total: int, tell: Tell = nothing) -> "Rounds":
        """Work in ``total`` rounds, the most that any rank has; ``tell`` hears how many are over, and of how many."""
        return Rounds(self, total, tell)

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


class Rounds:
    """Called after each round of work that no rank does alone; between them all ranks agree on whether to stop."""

    def __init__(self, stop: StopRequest, total: int, tell: Tell = nothing) -> None:
        self._stop, self._total, self._tell, self._done = stop, total, tell, 0
        if total:
            stop.ask()

    def __call__(self) -> None:
        """A round is over.

        Raises:
            Preempted: on every rank after the same round, if one was asked to stop.
        """
        self._done += 1
        self._tell(self._done, self._total)
        if self._stop.agreed():
            raise Preempted(f"stopped by {self._stop.reason}.")
        if self._done < self._total:
            self._stop.ask()

    def rest(self) -> None:
        """The rounds that other ranks have more than this one."""
        while self._done < self._total:
            self()

    def after(self, work: Iterable[T]) -> Iterator[T]:
        """``work``, and then the rest: what comes after it, all ranks do together."""
        yield from work
        self.rest()
