"""One piece of work after the other; of those of one asker that wait, only the newest is done.

A slider that moves asks faster than a model answers. What it asked in between is not wanted any more.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
MOST_WAITING = 32


class SupersededError(Exception):
    """A newer request of the same asker took this one's place; its work was not begun."""


class BusyError(Exception):
    """Too many askers wait."""


class Newest:
    """A queue with one place for each asker, and one thread that works."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, "explore")
        self._lock = asyncio.Lock()
        self._waiting: dict[str, asyncio.Event] = {}

    async def run(self, asker: str, work: Callable[[], T]) -> T:
        """Do ``work`` in the thread, once those that came before are done.

        Raises:
            SupersededError: if the same asker came again before it was begun.
            BusyError: if too many askers wait.
        """
        if (older := self._waiting.pop(asker, None)) is not None:
            older.set()
        if len(self._waiting) >= MOST_WAITING:
            raise BusyError
        replaced = self._waiting[asker] = asyncio.Event()
        try:
            await self._turn(replaced)
        finally:
            if self._waiting.get(asker) is replaced:
                del self._waiting[asker]
        done = asyncio.get_running_loop().run_in_executor(self._worker, work)
        done.add_done_callback(lambda _: self._lock.release())  # also if the asker is gone by then
        return await asyncio.shield(done)

    async def _turn(self, replaced: asyncio.Event) -> None:
        """Wait for the lock, which is then held; or for a newer request."""
        mine, newer = asyncio.ensure_future(self._lock.acquire()), asyncio.ensure_future(replaced.wait())
        is_kept = False
        try:
            await asyncio.wait((mine, newer), return_when=asyncio.FIRST_COMPLETED)
            is_kept = not replaced.is_set()
        finally:
            newer.cancel()
            if not mine.done():
                mine.cancel()
            elif not is_kept:
                self._lock.release()
        if not is_kept:
            raise SupersededError
