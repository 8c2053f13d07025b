"""Which rank is missing: a collective only says that somebody is, the store that all met at knows who signed out."""

import os
import socket
import threading
import time
from collections.abc import Iterable
from datetime import timedelta
from uuid import uuid4

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store

from lvae_torch.errors import LostRank

GRACE = 5.0
"""Seconds that a rank which lost another one waits for the rest to say the same."""


class RollCall:
    """Every rank signs in with its place, and signs out with its reason if it fails.

    Args:
        store: where the ranks met; rank 0, or torchrun beside it, serves it.
        rank: of this process.
        world: how many ranks there are.
    """

    def __init__(self, store: Store, rank: int, world: int) -> None:
        self._door, self._rank, self._world = PrefixStore("door", store), rank, world
        self._store = PrefixStore("roll_call", store)
        self._meeting = ""
        self.store: Store = store
        """The corner of the store that is ours alone, once all have signed in."""
        self._place = f"{socket.gethostname()}, process {os.getpid()}"

    def sign_in(self, timeout: timedelta) -> None:
        """Wait until every rank is here, and agree on a corner of the store that no process before us has used.

        torchrun keeps its store over restarts, and in it the addresses of the dead.

        Raises:
            LostRank: naming those that did not come in time.
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
        """Enter the corner that rank 0 names. It answers tickets, and a ticket is never used twice."""
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
            if self._door.check([f"hello/{rank}"]):  # perhaps still that of a process before it: ask again later
                self._door.set(f"welcome/{self._door.get(f'hello/{rank}').decode()}", self._meeting)

    def _absent(self) -> list[int]:
        """Who has not signed in; who was not welcomed knows only that rank 0 did not do it."""
        if not self._meeting:
            return [0]
        return [rank for rank in range(self._world) if not self._store.check([f"in/{rank}"])]

    def told_by_all(self, subject: str, value: str) -> list[str]:
        """What every rank says of ``subject``, in the order of ranks; to be asked once, by all."""
        self._store.set(f"{subject}/{self._rank}", value)
        keys = [f"{subject}/{rank}" for rank in range(self._world)]
        self._store.wait(keys)
        return [self._store.get(key).decode() for key in keys]

    def where(self, rank: int) -> str:
        """Host and process of a rank that has signed in."""
        return self._store.get(f"in/{rank}").decode()

    def find_lost(self, reason: BaseException) -> LostRank | None:
        """Sign out. What names the rank whose loss ``reason`` tells of; None if it tells of something else."""
        if isinstance(reason, LostRank):  # found already
            return None
        is_loss = _tells_of_a_loss(reason)
        if is_loss and dist.is_initialized():
            dist.destroy_process_group()  # closes our connections too, so that nobody waits for us meanwhile
        found: list[str] = []

        def ask() -> None:
            try:
                self._store.set(f"out/{self._rank}", "" if is_loss else f"{type(reason).__name__}: {reason}")
                if is_loss:
                    found.append("; ".join(self._others()) or "all are alive, so the network between them failed")
            except dist.DistError:
                pass  # it does not answer

        # In a thread of its own: where the link is cut, the store keeps us waiting for as long as TCP does.
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(2 * GRACE)
        return self._lost(found) if is_loss else None

    def _others(self) -> list[str]:
        """What is known of the ranks that have not lost one themselves."""
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
    """Whether a collective failed or timed out. gloo has no error of its own, but its errors begin with its name."""
    return isinstance(reason, dist.DistError) or (isinstance(reason, RuntimeError) and "/gloo/" in str(reason))
