"""The processes of one run: one on a laptop, or as many as ``torchrun`` started, on any number of nodes."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from lvae_torch.distributed.leaving import leave_group
from lvae_torch.distributed.memory import keep_freed_memory
from lvae_torch.distributed.place import Device, Standing, choose_device, device_told
from lvae_torch.distributed.roll_call import RollCall
from lvae_torch.errors import CfgError, LostRank, say


@dataclass(frozen=True)
class Processes:
    """This process among its peers. With one process every collective does nothing."""

    rank: int
    world: int
    device: torch.device
    roll_call: RollCall | None = None
    """The signed-in ranks; None with one process."""

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files and messages."""
        return self.rank == 0

    def say(self, line: str) -> None:
        """Print a line to standard error once, although every rank gets here."""
        if self.is_main:
            say(line)

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum ``tensor`` over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean(self, value: float) -> float:
        """The mean over all ranks, the same on each to the bit."""
        return float(self.sum_(torch.tensor(value, dtype=torch.float64))) / self.world if self.world > 1 else value

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Copy the tensors of rank 0 to every rank, in place."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def barrier(self) -> None:
        """Wait until all ranks have arrived."""
        if self.world > 1:
            dist.barrier()

    def require_same(self, subject: str, value: str, remedy: str) -> None:
        """Check that every rank gives the same ``value`` (lines of text) for ``subject``; call it once per subject.

        Raises:
            CfgError: on every rank, with the lines in which rank 0 and the first differing rank differ.
        """
        if self.roll_call is None:
            return
        first, *others = self.roll_call.told_by_all(subject, value)
        for rank, other in enumerate(others, start=1):
            if other != first:
                lines = [
                    f"  rank {r} ({self.roll_call.where(r)}): {'; '.join(_lines_only_in(a, b)) or 'nothing of that'}"
                    for r, a, b in ((0, first, other), (rank, other, first))
                ]
                raise CfgError("\n".join([f"The processes do not have the same {subject}:", *lines, remedy]))

    def find_lost(self, reason: BaseException) -> LostRank | None:
        """An error naming the lost rank, if ``reason`` was caused by one; else None."""
        return None if self.roll_call is None else self.roll_call.find_lost(reason)


@contextmanager
def start_processes(device: Device = "auto", timeout_minutes: float = 30) -> Iterator[Processes]:
    """Join the ranks that ``torchrun`` started (NCCL between GPUs, gloo between CPUs), or run alone.

    Raises:
        CfgError: if a GPU is asked for and there is none, a local rank has no GPU of its own, or the environment tells
            only a part of where this process stands.
        LostRank: if another rank does not come in time, or is lost on the way.
    """
    standing = Standing.of(os.environ)
    rank, world = standing.rank, standing.world
    chosen = choose_device(device, standing.local_rank)
    if rank == 0:
        say(device_told(chosen, device, world))
    if chosen.type == "cpu":
        keep_freed_memory()
    if world == 1:
        yield Processes(rank, world, chosen)
        return
    timeout = timedelta(minutes=timeout_minutes)
    roll_call = RollCall(_common_store(rank, timeout), rank, world)
    is_left = False
    try:
        roll_call.sign_in(timeout)
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        corner = PrefixStore("default_pg", roll_call.store)
        own_card = chosen if chosen.type == "cuda" else None  # NCCL connects at once, and to no other card
        with roll_call.watching():
            dist.init_process_group(
                backend, store=corner, rank=rank, world_size=world, timeout=timeout, device_id=own_card
            )
        yield Processes(rank, world, chosen, roll_call)
    except BaseException as reason:
        if chosen.type == "cuda":
            leave_group()
            is_left = True
        if lost := roll_call.find_lost(reason):
            raise lost from reason
        raise
    finally:
        if dist.is_initialized() and not is_left:
            dist.destroy_process_group()
        roll_call.close()


def _common_store(rank: int, timeout: timedelta) -> Store:
    """The store where the ranks meet, which torchrun serves, or else rank 0.

    Raises:
        LostRank: if rank 0 cannot be reached in time.
        CfgError: if rank 0 cannot serve the store, because its port is taken.
    """
    place = f"MASTER_ADDR = {os.environ['MASTER_ADDR']}, MASTER_PORT = {os.environ['MASTER_PORT']}"
    try:  # a world of one: rank 0 must not wait here, where it could not name the others
        return next(rendezvous("env://?world_size=1", timeout=timeout))[0]
    except dist.DistError as reason:
        told = str(reason).splitlines()[0]
        if rank == 0:
            raise CfgError(
                f"rank 0 cannot be met at {place}: {told}. Choose another port, or end what has it."
            ) from reason
        raise LostRank(f"rank {rank} did not reach rank 0 at {place} within {timeout}: {told}") from reason


def _lines_only_in(text: str, other: str) -> list[str]:
    known = set(other.splitlines())
    return [line for line in text.splitlines() if line not in known]
