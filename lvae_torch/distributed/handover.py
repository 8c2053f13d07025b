"""What rank 0 finds out alone before the processes are joined, such as where a download lies; the others are told."""

import json
import os
from collections.abc import Callable
from datetime import timedelta

from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from lvae_torch.distributed.place import Standing
from lvae_torch.errors import DataError, LostRank, UserError

PATIENCE = timedelta(hours=6)  # for what rank 0 downloads


def told_by_main(subject: str, find: Callable[[], str]) -> str:
    """``find()`` of rank 0, on every rank; no other rank calls it.

    Args:
        subject: one thing of a start of the program, the same on all ranks.
    Raises:
        UserError: on rank 0 what ``find`` raised; on the others the same message.
        LostRank: if rank 0 never tells.
    """
    standing = Standing.of(os.environ)
    if standing.world == 1:
        return find()
    store = next(rendezvous("env://", timeout=PATIENCE))[0]
    # torchrun keeps its store over restarts.
    key = f"{subject} {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    corner = PrefixStore("handover", store)
    if standing.rank == 0:
        try:
            found = find()
        except UserError as error:
            corner.set(key, json.dumps({"error": str(error)}))
            raise
        corner.set(key, json.dumps({"found": found}))
        return found
    try:
        told = json.loads(corner.get(key))
    except Exception as error:
        raise LostRank(f"rank {standing.rank} waited in vain for rank 0 to tell of {subject} ({error}).") from error
    if "error" in told:
        raise DataError(told["error"])
    return str(told["found"])
