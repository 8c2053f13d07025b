"""A pulse of each rank in the ranks' common store: whose stands still has been killed, hangs, or is cut off."""

import threading
import time
from collections.abc import Iterable

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store

BEAT = 1.0
"""Seconds between beats."""
SILENCE = 15.0
"""Seconds without a beat after which a rank is lost: a rank that computes, or imports, beats all the same."""
NOTHING = b"", 0.0


class Pulse:
    """The own beats, in a thread, and a look at those of others; on connections of its own, which no answer blocks.

    Args:
        store: torchrun keeps it over restarts: a beat that was there before we looked is not believed.
        rank: the own one.
    """

    def __init__(self, store: Store, rank: int) -> None:
        self._store, self._rank = PrefixStore("pulse", store.clone()), rank
        self._ended = threading.Event()
        self._seen: dict[int, tuple[bytes, float]] = {}  # rank -> its last beat, and for how long we have seen that
        self._beaten: set[int] = set()
        self._looked_at = time.monotonic()
        threading.Thread(target=self._beat, args=(self._store.clone(),), name="pulse", daemon=True).start()

    def end(self) -> None:
        """Beat no more."""
        self._ended.set()

    def silent(self, ranks: Iterable[int]) -> list[int]:
        """Those of ``ranks`` that did beat, and have not for so long. Ask again and again; nothing is waited for."""
        ranks = list(ranks)
        if time.monotonic() - self._looked_at >= BEAT:  # oftener there is nothing new
            self._look(ranks)
        return [rank for rank in ranks if rank in self._beaten and self._seen.get(rank, NOTHING)[1] > SILENCE]

    def _look(self, ranks: Iterable[int]) -> None:
        """Time in which we did not look, because we were stopped ourselves, does not count."""
        now = time.monotonic()
        passed, self._looked_at = min(now - self._looked_at, 2 * BEAT), now
        for rank in ranks:
            beat = self._store.get(str(rank)) if self._store.check([str(rank)]) else b""
            before, still = self._seen.get(rank, (beat, 0.0))
            if beat != before:
                self._beaten.add(rank)
            self._seen[rank] = beat, still + passed if beat == before else 0.0

    def came(self, ranks: Iterable[int]) -> None:
        """These are known to be there, so that their silence counts from now on."""
        self._beaten.update(ranks)

    def _beat(self, store: Store) -> None:
        count = 0
        try:
            while not self._ended.wait(BEAT if count else 0):
                count += 1
                store.set(str(self._rank), str(count))
        except dist.DistError:
            pass  # the store has ended, and with it the run
