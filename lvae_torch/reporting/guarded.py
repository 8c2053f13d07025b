"""A reporter that can neither stop nor slow a training: it reports from a thread of its own."""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import numpy as np

from lvae_torch.errors import say
from lvae_torch.reporting.reporter import Reporter

MOST_WAITING = 1000
"""Reports that wait for a slow tracker; what comes while so many do is left out."""
PATIENCE = 60.0
"""Seconds that the end of a training waits for a tracker."""

Report = Callable[[Reporter], None]


class GuardedReporter:
    """Opens another reporter in a thread, and passes reports on to it, in order.

    The first exception of any call ends the reporting there, and is told once; all else goes on.

    Args:
        name: what messages call it.
        open_: makes the reporter; imports and connections belong here.
    """

    def __init__(self, name: str, open_: Callable[[], Reporter]) -> None:
        self._name, self._open = name, open_
        self._waiting: queue.Queue[Report | None] = queue.Queue(MOST_WAITING)
        self._has_failed = self._has_left_out = False
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        kept = dict(values)
        self._pass_on(lambda reporter: reporter.scalars(step, kept))

    def image(self, step: int, tag: str, grid: np.ndarray) -> None:
        self._pass_on(lambda reporter: reporter.image(step, tag, grid))

    def histogram(self, step: int, tag: str, values: np.ndarray) -> None:
        self._pass_on(lambda reporter: reporter.histogram(step, tag, values))

    def close(self) -> None:
        """Wait until everything is reported, but not for ever."""
        end = time.monotonic() + PATIENCE
        with suppress(queue.Full):
            self._waiting.put(None, timeout=PATIENCE)
        self._thread.join(max(0.0, end - time.monotonic()))
        if self._thread.is_alive():
            say(f"tracker {self._name}: does not answer; what it was not told yet is left out.")

    def _pass_on(self, report: Report) -> None:
        if self._has_failed:
            return
        try:
            self._waiting.put_nowait(report)
        except queue.Full:
            if not self._has_left_out:
                self._has_left_out = True
                say(f"tracker {self._name}: is too slow; reports are left out. metrics.jsonl has all numbers.")

    def _work(self) -> None:
        try:
            reporter = self._open()
            while (report := self._waiting.get()) is not None:
                report(reporter)
            reporter.close()
        except BaseException as error:  # some of them end the process; this ends the thread
            self._has_failed = True
            told = str(error).strip().splitlines()
            say(
                f"tracker {self._name}: failed, and is told no more ({type(error).__name__}: "
                f"{told[0] if told else ''}). The training goes on; metrics.jsonl has all numbers."
            )
