"""Folders of dumps that several people write: what is made there gets the folder's rights, and locks are for all."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lvae_torch.errors import DataError


def share(path: Path) -> None:
    """Give ``path`` the rights of the folder it lies in, if that is shared; a umask for private files does not count.

    Shared is a folder that its group, or everybody, may write, or whose group its files inherit.
    """
    folder = path.parent.stat().st_mode
    if folder & stat.S_ISVTX or not folder & (stat.S_ISGID | stat.S_IWGRP | stat.S_IWOTH):
        return
    mode = (folder & 0o2777) | 0o700 if path.is_dir() else (folder & 0o666) | 0o600
    with suppress(OSError):  # of somebody else, who has given it such rights already
        path.chmod(mode)


def make_shared_folder(path: Path) -> None:
    """Make ``path``, and what is missing above it."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        share(folder)


@contextmanager
def locked(lock_file: Path, what: str, wait: bool) -> Iterator[None]:
    """Hold a lock that the system lets go of when the process ends, however it ends.

    Args:
        wait: for another process that holds it, instead of an error.
    Raises:
        DataError: if another process holds it, it cannot be written, or the file system knows no locks.
    """
    lock = FileLock(lock_file, timeout=-1 if wait else 0, mode=0o600 | (_rights(lock_file.parent) & 0o666))
    try:
        make_shared_folder(lock_file.parent)
        lock.acquire()
    except Timeout as error:
        raise DataError(f"{lock_file}: another process is making {what}. Wait for it, or stop it.") from error
    except OSError as error:
        raise DataError(f"{lock_file}: cannot be written ({error.strerror}). Choose another --dumps folder.") from error
    except NotImplementedError as error:
        raise DataError(
            f"{lock_file}: this file system knows no locks. Choose a --dumps folder on another one."
        ) from error
    try:
        share(lock_file)
        yield
    finally:
        lock.release()


def _rights(folder: Path) -> int:
    """Of the folder, or the first above it that there is; where that is not shared, what the umask leaves of all."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    umask = os.umask(0)
    os.umask(umask)
    mode = there.stat().st_mode
    is_shared = not mode & stat.S_ISVTX and mode & (stat.S_ISGID | stat.S_IWGRP | stat.S_IWOTH)
    return mode if is_shared else 0o644 & ~umask
