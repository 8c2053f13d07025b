"""The folders of runs and dumps: whether their file systems can do what runs and conversions ask of them."""

import fcntl
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lvae_torch.doctor.finding import Finding

LITTLE = 5 * 2**30
"""Bytes of free space below which a folder is told."""


def check_folder(subject: str, folder: Path, option: str) -> Iterator[Finding]:
    """Writing, locks, shared maps and room in ``folder``, or in what is above it where it is not there yet.

    Args:
        option: what chooses another folder.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    told, remedy = f"{folder}", f"Choose another folder by {option}."
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield Finding(subject, f"{told}: {there} cannot be written", "fault", remedy)
        return
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".doctor-") as file:
            locks, maps = has_locks(Path(file.name)), has_shared_maps(Path(file.name))
    except OSError as error:
        yield Finding(subject, f"{told}: {error.strerror}", "fault", remedy)
        return
    if not locks:
        yield Finding(subject, f"{told}: files cannot be locked there", "fault", f"Mount it with locks. {remedy}")
    if not maps:
        told_ = f"{told}: no shared writable maps; conversions take a slower way"
        yield Finding(subject, told_, "warning", f"Mount it so that files can be mapped. {remedy}")
    free = shutil.disk_usage(there).free
    told = f"{told}: {free / 2**30:.1f} GiB free"
    if free < LITTLE:
        yield Finding(subject, told, "warning", f"Make room. {remedy}")
    elif locks and maps:
        yield Finding(subject, f"{told}, locks, shared maps")


def has_locks(path: Path) -> bool:
    """Whether a lock on ``path`` keeps another open file out, as it would another process."""
    with open(path, "rb") as ours, open(path, "rb") as others:
        try:
            fcntl.flock(ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        try:
            fcntl.flock(others, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


def has_shared_maps(path: Path) -> bool:
    """Whether what is written into a map of ``path`` is in the file."""
    try:
        with open(path, "r+b") as file:
            file.write(bytes(mmap.PAGESIZE))
            file.flush()
            with mmap.mmap(file.fileno(), mmap.PAGESIZE) as mapped:
                mapped[0] = 1
                mapped.flush()
        return path.read_bytes()[:1] == b"\x01"
    except (OSError, ValueError):
        return False
