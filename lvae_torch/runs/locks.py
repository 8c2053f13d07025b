"""File locks, which the system releases when their process ends, however it ends."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from lvae_torch.errors import CfgError, DataError, say
from lvae_torch.files import make_folder

PATIENCE = 180.0
"""Seconds to wait for a lock of another host: NFS 4 keeps the lock of a crashed host for its lease, often 90 s."""


@contextmanager
def held(lock_file: Path, what: Path, remedy: str) -> Iterator[None]:
    """Hold ``lock_file``, which protects ``what``.

    Args:
        remedy: advice for the message if another process holds the lock.
    Raises:
        CfgError: naming the host and process that hold it: at once on this host, else after a wait.
        DataError: if the folder cannot be written, or its file system has no locks.
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
    deadline, has_told = time.monotonic() + PATIENCE, False
    while not _is_taken(file):
        file.seek(0)
        owner = file.read().strip()
        is_elsewhere = bool(owner) and not owner.endswith(_here())
        if not is_elsewhere or time.monotonic() > deadline:
            raise CfgError(f"{what}: in use by {owner or 'another process'}. {remedy}")
        if not has_told:
            say(f"{what}: in use by {owner}; waiting up to {PATIENCE:.0f} s, in case that host is gone.")
            has_told = True
        time.sleep(0.5)


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
        os.write(file.fileno(), f"process {os.getpid()}{_here()}\n".encode())
    except OSError as error:
        raise DataError(
            f"{file.name}: cannot be written ({error.strerror}). Free some space and repeat the command."
        ) from error


def _here() -> str:
    return f" on {socket.gethostname()}"
