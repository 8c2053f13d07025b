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


class Progress:
    """Called with what is being done, how much of it is done, and of how much."""

    def __init__(self, name: str = "") -> None:
        self._prefix = f"{name}: " if name else ""
        self._phase = ""
        self._bar: tqdm[None] | None = None

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase != self._phase:
            self._begin(phase, done, total)
        with suppress(OSError):  # a closed terminal ends no work
            self._show(done, total)

    def _begin(self, phase: str, done: int, total: int) -> None:
        self.close()
        self._phase, self._first, self._began = phase, done, time.monotonic()
        self._told = self._began
        if sys.stderr.isatty() and total:
            # Short work shows no bar at all.
            self._bar = tqdm(total=total, initial=done, desc=self._prefix + phase, unit="", leave=False, delay=1.0)

    def _show(self, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            if done >= total:
                self.close()
        elif total and done < total and time.monotonic() - self._told >= PAUSE:
            self._told = time.monotonic()
            rate = (done - self._first) / (self._told - self._began)
            to_go = f"  {duration((total - done) / rate)} to go" if rate else ""
            say(f"{self._prefix}{self._phase} {done:,} of {total:,} ({done / total:.0%}){to_go}")

    def close(self) -> None:
        """The work is over."""
        self._phase = ""
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()
            self._bar = None


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
