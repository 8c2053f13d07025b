"""Signals that ask for a stop, heard wherever a command is. Nothing heavy is imported here."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lvae_torch.errors import Preempted, say

GRACE = 4.0
"""Seconds that a command has to leave, once it was asked to stop where there is nothing to save."""
AGAIN = 0.1
"""Seconds after which a signal is sent to the main thread once more.

One that comes just before a wait, or that the system gives to another thread, does not end the wait."""


def stop_signals() -> set[signal.Signals]:
    """SIGTERM, SIGINT, SIGUSR1, and SIGHUP (the terminal is gone) unless nohup has set it aside."""
    asked = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1}
    return asked if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else asked | {signal.SIGHUP}


def stopped_by(number: int, where: str = "") -> str:
    """What is told of a stop."""
    return f"stopped by {signal.Signals(number).name}{where}; the same command continues."


@contextmanager
def heard_at_once() -> Iterator[None]:
    """Inside, a stop signal ends what is being done, except where something else listens (as a training does).

    A wait inside a library, for another process or a disk, hears no signal: then the process ends after ``GRACE``.

    Raises:
        Preempted: at any place, after a signal.
        KeyboardInterrupt: after SIGINT, with which ``cli.main`` ends in the same way.
    """
    if threading.current_thread() is not threading.main_thread():  # others cannot hear signals
        yield
        return
    asked = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:  # a second one must not disturb the tidying after the first
            asked = True
            raise KeyboardInterrupt if number == signal.SIGINT else Preempted(stopped_by(number))

    numbers = stop_signals()
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as of a command that a script began with &
        numbers -= {signal.SIGINT}
    before = {number: signal.signal(number, stop) for number in numbers}
    read, write = os.pipe()
    os.set_blocking(write, False)
    outer = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    over, leaving = threading.Event(), threading.Lock()
    watch = threading.Thread(target=_end_what_hangs, args=(read, stop, over, leaving), name="signals", daemon=True)
    watch.start()
    try:
        yield
    finally:
        with leaving:
            over.set()
        signal.set_wakeup_fd(outer)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(write)  # which ends the thread
        watch.join()
        os.close(read)


def _end_what_hangs(read: int, stop: object, over: threading.Event, leaving: threading.Lock) -> None:
    """For each signal that ``stop`` is to handle: wake the main thread, and end the process if it is not over soon."""
    while told := os.read(read, 1):
        number = told[0]
        if over.wait(AGAIN):
            continue
        with leaving:  # over is not set meanwhile: the handler is still ours when the signal arrives
            if over.is_set() or signal.getsignal(number) is not stop:
                continue
            signal.pthread_kill(threading.main_thread().ident or 0, number)
        if not over.wait(GRACE):
            say(stopped_by(number, " while waiting"))
            os._exit(Preempted.exit_status)
