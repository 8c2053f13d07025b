"""File locks, which the system releases when their process ends, however it ends."""

import fcntl
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from lvae_torch.distributed import launcher
from lvae_torch.errors import CfgError, DataError, say
from lvae_torch.files import make_folder

PATIENCE = 180.0
"""Seconds to wait for a lock of another host: NFS 4 keeps the lock of a crashed host for its lease, often 90 s."""

ORPHAN = re.compile(r"of launcher (\d+)")


@contextmanager
def held(lock_file: Path, what: Path, remedy: str) -> Iterator[None]:
    """Hold ``lock_file``, which protects ``what``.

    Args:
        remedy: advice for the message if another process holds the lock.
    Raises:
        CfgError: naming host and process that hold it. Those of this host are believed at once, unless what started
            them is gone: then they save and end, and are waited for.
        DataError: if the folder cannot be written, or knows no locks.
    """
    try:
        make_folder(lock_file.parent)
        file = open(lock_file, "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise DataError(f"{what}: cannot be written ({error.strerror}). Choose another [run] runs.") from error
    with file:
        _wait_for(file, what, remedy)
        _sign(file)
        yield


def _wait_for(file: TextIO, what: Path, remedy: str) -> None:
    began, has_told = time.monotonic(), False
    while not _is_taken(file):
        file.seek(0)
        owner = file.read().strip()
        patience, why = _worth_waiting(owner)
        if time.monotonic() - began >= patience:
            raise CfgError(f"{what}: in use by {owner or 'another process'}. {remedy}")
        if not has_told:
            say(f"{what}: in use by {owner}; waiting up to {patience:.0f} s, {why}.")
            has_told = True
        time.sleep(0.5)


def _worth_waiting(owner: str) -> tuple[float, str]:
    """How many seconds to wait for an owner as ``_sign`` names it, and why; 0 for one that is well."""
    if owner and not owner.endswith(_here()):
        return PATIENCE, "in case that host is gone"
    if (match := ORPHAN.search(owner)) and launcher.is_gone(int(match[1])):
        return launcher.PATIENCE + 5, "for what started that one is gone, so it is ending too"
    return 0.0, ""


def _is_taken(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise DataError(
            f"{file.name}: cannot be locked ({error.strerror}). Choose another [run] runs, on a file system with locks."
        ) from error
    return True


def _sign(file: TextIO) -> None:
    try:
        os.ftruncate(file.fileno(), 0)
        started_by = f" of launcher {parent}" if (parent := launcher.launcher()) is not None else ""
        os.write(file.fileno(), f"process {os.getpid()}{started_by}{_here()}\n".encode())
    except OSError as error:
        raise DataError(
            f"{file.name}: cannot be written ({error.strerror}). Free some space and repeat the command."
        ) from error


def _here() -> str:
    return f" on {socket.gethostname()}"
