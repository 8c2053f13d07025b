"""Leaving a process group after an error, in bounded time."""

import threading

import torch.distributed as dist
from torch.distributed.distributed_c10d import _abort_process_group

from lvae_torch.errors import say

ABORT_SECONDS = 5.0
"""How long an NCCL group may take to end."""


def leave_group() -> None:
    """Leave the group, if there is one, so that no rank waits for us; we wait for nothing that is pending.

    Destroying an NCCL group waits for its work, which may wait for a rank that is gone, for as long as half an hour. So
    it is aborted. The abort itself calls CUDA, which may hang too: then the process goes on without it.
    """
    if not dist.is_initialized():
        return
    if "nccl" not in str(dist.get_backend_config()):
        dist.destroy_process_group()
        return
    aborting = threading.Thread(target=_abort_process_group, daemon=True)
    aborting.start()
    aborting.join(ABORT_SECONDS)
    if aborting.is_alive():
        say(f"The process group did not end within {ABORT_SECONDS:.0f} s; leaving without it.")
