"""Finds out which rank is missing. A failed collective does not name it, but the ranks' common store can."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import uuid4

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store

from lvae_torch.distributed.leaving import leave_group
from lvae_torch.distributed.pulse import Pulse
from lvae_torch.errors import LostRank, say

GRACE = 5.0
"""Seconds that a rank waits, after losing another one, for the remaining ranks to report."""
ANSWER = 5.0
"""Seconds that the store has, beside that, for all answers."""
NETWORK = "all are alive, so the network between them failed"
NOTICE = 10.0
"""Seconds after which rank 0 tells for whom it waits."""
POLL = 0.05
"""Seconds between looks."""


class RollCall:
    """Every rank signs in with its host and process, and signs out with the reason if it fails.

    Args:
        store: the store where the ranks meet; rank 0, or torchrun beside it, serves it.
        rank: the rank of this process.
        world: number of ranks.
    """

    def __init__(self, store: Store, rank: int, world: int) -> None:
        self._door, self._rank, self._world = PrefixStore("door", store), rank, world
        self._store = PrefixStore("roll_call", store)
        self._meeting = ""
        self.store: Store = store
        """The part of the store that only this run uses, once all have signed in."""
        self._timeout = timedelta()
        self._places: dict[int, str] = {}
        self._pulse = Pulse(store, rank)
        self._place = f"{socket.gethostname()}, process {os.getpid()}"

    def sign_in(self, timeout: timedelta) -> None:
        """Wait until every rank has arrived, and agree on a part of the store that no earlier process has used.

        torchrun keeps its store over restarts, with the addresses of processes that have ended.

        Raises:
            LostRank: naming the ranks that did not arrive in time, or were lost in the meantime.
        """
        self._timeout = timeout
        deadline = time.monotonic() + timeout.total_seconds()
        self._meet(deadline)
        self._store.set(f"in/{self._rank}", self._place)
        self._wait(lambda: self._without("in"), deadline)
        self._places = {rank: self._store.get(f"in/{rank}").decode() for rank in range(self._world)}
        self._pulse.came(range(self._world))

    def _meet(self, deadline: float) -> None:
        """Use the part of the store that rank 0 names in answer to our ticket; each ticket is used once."""
        ticket, self._meeting, self._places = uuid4().hex, "", {}
        if self._rank:
            welcome = f"welcome/{ticket}"
            self._door.set(f"hello/{self._rank}", ticket)
            self._wait(lambda: [] if self._door.check([welcome]) else [0], deadline)
            self._meeting = self._door.get(welcome).decode()
        else:
            self._meeting = ticket
        self.store = PrefixStore(self._meeting, self._door)
        self._store = PrefixStore("roll_call", self.store)

    def _wait(self, absent: Callable[[], list[int]], deadline: float) -> None:
        """Wait until no rank is ``absent``; at the loss of one of them, no longer.

        Raises:
            LostRank: naming those that are lost, or those that did not come before the ``deadline``.
        """
        notice = time.monotonic() + NOTICE
        while ranks := absent():
            gone = [rank for rank in ranks if self._places and self._reason(rank)] or self._pulse.silent(ranks)
            if gone and (lost := sorted(set(gone) & set(absent()))):  # one may have come meanwhile, and left
                raise self._lost("; ".join(filter(None, map(self._report, lost))) or NETWORK)
            if time.monotonic() > deadline:
                raise LostRank(
                    f"rank {self._rank} of {self._world} ({self._place}) waited {self._timeout} in vain for rank "
                    f"{', '.join(map(str, ranks))}. See what the other nodes say and start them again; "
                    "[train] timeout_minutes is how long to wait."
                )
            if self._rank == 0:
                self._welcome(ranks)
                if time.monotonic() > notice:
                    who = f"rank 0 of {self._world} waits for rank {', '.join(map(str, ranks))}"
                    say(f"{who}, until {self._timeout} are over ([train] timeout_minutes).")
                    notice = deadline
            time.sleep(POLL)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, the loss of a rank ends this process with the message and its status.

        For what waits where no exception reaches it, such as the making of a process group.
        """
        done = threading.Event()

        def watch() -> None:
            while not done.wait(POLL):
                if lost := self._pulse.silent(self._others):  # we ask the pulse alone: our store may be busy waiting
                    say(str(self._lost("; ".join(map(self._silence, lost)))))
                    os._exit(LostRank.exit_status)

        watcher = threading.Thread(target=watch, name="watching", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join(POLL + GRACE)

    def close(self) -> None:
        """Give no more signs of life."""
        self._pulse.end()

    def _welcome(self, ranks: Iterable[int]) -> None:
        for rank in ranks:
            if self._door.check([f"hello/{rank}"]):  # perhaps of an earlier process: sign_in asks again
                self._door.set(f"welcome/{self._door.get(f'hello/{rank}').decode()}", self._meeting)

    def _without(self, subject: str) -> list[int]:
        """Ranks that have said nothing of ``subject``; "in" is that they are there."""
        return [rank for rank in range(self._world) if not self._store.check([f"{subject}/{rank}"])]

    def told_by_all(self, subject: str, value: str) -> list[str]:
        """The value of every rank for ``subject``, in rank order; all ranks must call it once per subject."""
        deadline, heard = time.monotonic() + self._timeout.total_seconds(), f"heard/{subject}"
        self._store.set(f"{subject}/{self._rank}", value)
        self._wait(lambda: self._without(subject), deadline)
        told = [self._store.get(f"{subject}/{rank}").decode() for rank in range(self._world)]
        self._store.set(f"{heard}/{self._rank}", "")
        if self._rank == 0:  # it may serve the store, which must not end with it before all have read
            self._wait(lambda: self._without(heard), deadline)
        return told

    def where(self, rank: int) -> str:
        """Host and process of a rank, as far as it has signed in."""
        return self._places.get(rank, "not signed in")

    def find_lost(self, reason: BaseException) -> LostRank | None:
        """Sign out; return an error naming the lost rank, if ``reason`` was caused by one, else None."""
        if isinstance(reason, LostRank):  # already found
            return None
        is_loss = _tells_of_a_loss(reason)
        if is_loss:
            leave_group()  # closes our connections
        found: list[str] = []

        def ask() -> None:
            try:
                self._store.set(f"out/{self._rank}", "" if is_loss else f"{type(reason).__name__}: {reason}")
                if is_loss:
                    found.append("; ".join(self._reports()) or NETWORK)
            except dist.DistError:
                pass  # the store does not answer

        # In a thread, because with a cut link the store answers only after TCP's long timeout.
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(GRACE + ANSWER)
        nobody = "nor does the node of rank 0 answer: it has ended, or this one is cut off from it"
        return self._lost(found[0] if found else nobody) if is_loss else None

    @property
    def _others(self) -> list[int]:
        return [rank for rank in range(self._world) if rank != self._rank]

    def _reports(self) -> list[str]:
        """Reports on the other ranks, except those that only lost a rank themselves."""
        deadline, silent = time.monotonic() + GRACE, self._others
        while silent and time.monotonic() < deadline:
            silent = [rank for rank in silent if not self._has_left(rank)]
            time.sleep(POLL)
        return list(filter(None, map(self._report, self._others)))

    def _has_left(self, rank: int) -> bool:
        return self._store.check([f"out/{rank}"])

    def _reason(self, rank: int) -> str:
        """Why a rank left; nothing if it has not, or only lost another one."""
        return self._store.get(f"out/{rank}").decode() if self._has_left(rank) else ""

    def _report(self, rank: int) -> str:
        """What became of a rank; nothing if it only lost another one."""
        if not self._places or not self._has_left(rank):
            return self._silence(rank)
        reason = self._reason(rank)
        return f"rank {rank} ({self.where(rank)}) left: {reason}" if reason else ""

    def _silence(self, rank: int) -> str:
        return f"rank {rank} ({self.where(rank)}) is silent: killed, hanging or cut off"

    def _lost(self, what: str) -> LostRank:
        return LostRank(
            f"rank {self._rank} of {self._world} ({self._place}) lost the others: {what}. The same command continues "
            "from the last checkpoint, as torchrun --max-restarts does by itself."
        )


def _tells_of_a_loss(reason: BaseException) -> bool:
    """Whether a collective failed or timed out. gloo raises RuntimeErrors that contain its name."""
    return isinstance(reason, dist.DistError) or (isinstance(reason, RuntimeError) and "/gloo/" in str(reason))
