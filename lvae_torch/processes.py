"""The processes of one run: one on a laptop, or as many as ``torchrun`` started, on any number of nodes."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from lvae_torch.errors import CfgError


@dataclass(frozen=True)
class Processes:
    """This process among its peers. With one process every collective is free and changes nothing."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files and talks."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Add up ``tensor`` over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank what rank 0 holds, in place."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def start_processes(
    device: Literal["auto", "cpu", "cuda"] = "auto", timeout_minutes: float = 30
) -> Iterator[Processes]:
    """Join the ranks that ``torchrun`` started (NCCL between GPUs, gloo between CPUs), or run alone.

    Raises:
        CfgError: if a GPU is asked for and there is none, or a local rank has no GPU of its own.
    """
    local_rank, rank, world = (
        int(os.environ.get(k, d)) for k, d in (("LOCAL_RANK", "0"), ("RANK", "0"), ("WORLD_SIZE", "1"))
    )
    processes = Processes(rank, world, _choose_device(device, local_rank))
    if world == 1:
        yield processes
        return
    backend = "cpu:gloo,cuda:nccl" if processes.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
    try:
        yield processes
    finally:
        dist.destroy_process_group()


def _choose_device(wanted: str, local_rank: int) -> torch.device:
    available = torch.cuda.is_available()
    if wanted == "cpu" or (wanted == "auto" and not available):
        return torch.device("cpu")
    if not available:
        raise CfgError("[run] device = cuda, but PyTorch finds no usable GPU; use auto or cpu, or check the driver.")
    if local_rank >= torch.cuda.device_count():
        raise CfgError(
            f"local rank {local_rank} has no GPU: this node has {torch.cuda.device_count()}. "
            "Lower torchrun's --nproc_per_node."
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
