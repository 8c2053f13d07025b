"""Finds out which rank is missing. A failed collective does not name it, but the ranks' common store can."""

import os
import socket
import threading
import time
from collections.abc import Iterable
from datetime import timedelta
from uuid import uuid4

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store

from lvae_torch.distributed.leaving import leave_group
from lvae_torch.errors import LostRank

GRACE = 5.0
"""Seconds that a rank waits, after losing another one, for the remaining ranks to report."""


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
        self._place = f"{socket.gethostname()}, process {os.getpid()}"

    def sign_in(self, timeout: timedelta) -> None:
        """Wait until every rank has arrived, and agree on a part of the store that no earlier process has used.

        torchrun keeps its store over restarts, with the addresses of processes that have ended.

        Raises:
            LostRank: naming the ranks that did not arrive in time.
        """
        deadline = time.monotonic() + timeout.total_seconds()
        try:
            self._meet(timeout)
            self._store.set(f"in/{self._rank}", self._place)
            while self._rank == 0 and self._absent() and time.monotonic() < deadline:
                self._welcome(self._absent())
                time.sleep(0.01)
            left = timedelta(seconds=max(0.001, deadline - time.monotonic()))
            self._store.wait([f"in/{rank}" for rank in range(self._world)], left)
        except dist.DistStoreError as error:
            raise LostRank(
                f"rank {self._rank} of {self._world} ({self._place}) waited {timeout} in vain for rank "
                f"{', '.join(map(str, self._absent()))}. See what the other nodes say and start them again; "
                "[train] timeout_minutes is how long to wait."
            ) from error

    def _meet(self, timeout: timedelta) -> None:
        """Use the part of the store that rank 0 names in answer to our ticket; each ticket is used once."""
        ticket, self._meeting = uuid4().hex, ""
        if self._rank:
            self._door.set(f"hello/{self._rank}", ticket)
            self._door.wait([f"welcome/{ticket}"], timeout)
            self._meeting = self._door.get(f"welcome/{ticket}").decode()
        else:
            self._meeting = ticket
        self.store = PrefixStore(self._meeting, self._door)
        self._store = PrefixStore("roll_call", self.store)

    def _welcome(self, ranks: Iterable[int]) -> None:
        for rank in ranks:
            if self._door.check([f"hello/{rank}"]):  # perhaps of an earlier process: sign_in asks again
                self._door.set(f"welcome/{self._door.get(f'hello/{rank}').decode()}", self._meeting)

    def _absent(self) -> list[int]:
        """Ranks that have not signed in; without an answer from rank 0, only rank 0 is known to be absent."""
        if not self._meeting:
            return [0]
        return [rank for rank in range(self._world) if not self._store.check([f"in/{rank}"])]

    def told_by_all(self, subject: str, value: str) -> list[str]:
        """The value of every rank for ``subject``, in rank order; all ranks must call it once per subject."""
        self._store.set(f"{subject}/{self._rank}", value)
        keys = [f"{subject}/{rank}" for rank in range(self._world)]
        self._store.wait(keys)
        return [self._store.get(key).decode() for key in keys]

    def where(self, rank: int) -> str:
        """Host and process of a rank that has signed in."""
        return self._store.get(f"in/{rank}").decode()

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
                    found.append("; ".join(self._others()) or "all are alive, so the network between them failed")
            except dist.DistError:
                pass  # the store does not answer

        # In a thread, because with a cut link the store answers only after TCP's long timeout.
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(2 * GRACE)
        return self._lost(found) if is_loss else None

    def _others(self) -> list[str]:
        """Reports on the other ranks, except those that only lost a rank themselves."""
        deadline = time.monotonic() + GRACE
        silent = [rank for rank in range(self._world) if rank != self._rank]
        told = []
        while silent and time.monotonic() < deadline:
            for rank in [rank for rank in silent if self._store.check([f"out/{rank}"])]:
                silent.remove(rank)
                if text := self._store.get(f"out/{rank}").decode():
                    told.append(f"rank {rank} ({self.where(rank)}) left: {text}")
            time.sleep(0.05)
        return told + [f"rank {r} ({self.where(r)}) is silent: killed, hanging or cut off" for r in silent]

    def _lost(self, found: list[str]) -> LostRank:
        what = found[0] if found else "nor does the node of rank 0 answer: it has ended, or this one is cut off from it"
        return LostRank(
            f"rank {self._rank} of {self._world} ({self._place}) lost the others: {what}. The same command continues "
            "from the last checkpoint, as torchrun --max-restarts does by itself."
        )


def _tells_of_a_loss(reason: BaseException) -> bool:
    """Whether a collective failed or timed out. gloo raises RuntimeErrors that contain its name."""
    return isinstance(reason, dist.DistError) or (isinstance(reason, RuntimeError) and "/gloo/" in str(reason))
