"""Writes what an archive holds into a file of its own: a full disk is told apart from damage in the archive."""

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from lvae_torch.errors import DataError


class NoRoomError(DataError):
    """Something cannot be written; what was to be unpacked may be good."""


def unpack(target: Path, what: str, pieces: Iterable[bytes]) -> Path:
    """Write ``pieces``, which ``what`` unpacks to, into the file ``target``; returns its path.

    Raises:
        NoRoomError: if there is no room for them, or they cannot be written; ``pieces`` itself must raise no OSError.
    """
    try:
        with open(target, "wb") as file:
            for piece in pieces:
                if len(piece) > shutil.disk_usage(target.parent).free:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                file.write(piece)
    except OSError as error:
        raise NoRoomError(
            f"{target}: cannot be written ({error.strerror}), where {what} is unpacked. Make room there, or unpack "
            "it yourself, and give what comes out as --source."
        ) from error
    return target
