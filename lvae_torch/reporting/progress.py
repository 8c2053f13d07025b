"""How far long work has come, for a person: a bar on a terminal, a line every now and then in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

from tqdm import tqdm

from lvae_torch.errors import say

T = TypeVar("T")
PAUSE = 15.0
"""Seconds between lines in a log; what is over sooner is not told of."""


class Course:
    """How far one piece of work has come: a bar with rate and time to go, where a terminal shows it.

    Args:
        done: of ``total``, at the beginning.
        stays: the bar is shown at once and stays when the work is over; else it is shown after a second, and goes.
    """

    def __init__(self, total: int, done: int = 0, name: str = "", unit: str = "", stays: bool = False) -> None:
        self.total, self._first, self._began = total, done, time.monotonic()
        self._bar: tqdm[None] | None = None
        if sys.stderr.isatty() and total:
            wait = 0.0 if stays else 1.0
            self._bar = tqdm(total=total, initial=done, desc=name or None, unit=unit, leave=stays, delay=wait)

    @property
    def has_bar(self) -> bool:
        return self._bar is not None

    def reached(self, done: int, note: str = "") -> None:
        """Move the bar, if there is one, and write a note behind it."""
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(done - self._bar.n)

    def to_go(self, done: int) -> str:
        """The time that the rest will take at the rate so far; "" before anything is done."""
        n = done - self._first
        return duration((time.monotonic() - self._began) / n * (self.total - done)) if n > 0 else ""

    def say(self, line: str) -> None:
        """Print a line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            say(line)

    def close(self) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()


class Progress:
    """Called with what is being done, how much of it is done, and of how much."""

    def __init__(self, name: str = "") -> None:
        self._prefix = f"{name}: " if name else ""
        self._phase = ""
        self._course: Course | None = None

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase != self._phase or self._course is None:
            self._begin(phase, done, total)
        with suppress(OSError):  # a closed terminal ends no work
            self._show(done, total)

    def _begin(self, phase: str, done: int, total: int) -> None:
        self.close()
        self._phase, self._told = phase, time.monotonic()
        self._course = Course(total, done, self._prefix + phase)

    def _show(self, done: int, total: int) -> None:
        assert self._course is not None
        if self._course.has_bar:
            self._course.reached(done)
            if done >= total:
                self.close()
        elif total and done < total and time.monotonic() - self._told >= PAUSE:
            self._told = time.monotonic()
            left = self._course.to_go(done)
            to_go = f"  {left} to go" if left else ""
            say(f"{self._prefix}{self._phase} {done:,} of {total:,} ({done / total:.0%}){to_go}")

    def close(self) -> None:
        """The work is over."""
        self._phase = ""
        if self._course is not None:
            self._course.close()
            self._course = None


def shown(work: Iterable[T], phase: str, per_item: int, total: int, is_shown: bool = True) -> Iterator[T]:
    """``work``, telling after each item that ``per_item`` more of ``total`` are done."""
    progress = Progress()
    if is_shown:
        progress(phase, 0, total)
    for k, item in enumerate(work, start=1):
        yield item
        if is_shown:
            progress(phase, min(total, k * per_item), total)
    progress.close()


def duration(seconds: float) -> str:
    """1:02:03, hours first."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
