"""What becomes of a dump whose name a new one takes."""

import json
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from lvae_torch.data.dump import DESCRIPTION
from lvae_torch.errors import DataError
from lvae_torch.files import finite, read_json


def check_place(folder: Path) -> None:
    """Check that a dump could be put there in the end, before the work.

    Raises:
        DataError: if something other than a folder has its name.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        what = "a link" if folder.is_symlink() else "a file"
        raise DataError(f"{folder}: is {what}, where the dump is to be. Remove it, or choose another --name.")


def differences(folder: Path, provenance: Mapping[str, Any], content_hash: str) -> Sequence[str]:
    """In what the dump in ``folder`` was made from something else than a new one; nothing if both hold the same.

    Nor is there anything to keep of a dump whose description nobody can read: making it again is what repairs it.

    Args:
        provenance: of the new dump.
        content_hash: of the new dump: where it is the same, nothing is lost.
    """
    try:
        there = read_json(folder / DESCRIPTION)
        before, hash_before = dict(there["provenance"]), there["content_hash"]
    except (DataError, KeyError, TypeError, ValueError):
        return []
    said = json.loads(json.dumps(finite(dict(provenance))))  # as it will be read
    differing = [key for key, value in said.items() if before.get(key) != value]
    return (differing or ["images"]) if content_hash != hash_before else []


def free_place(folder: Path) -> Path:
    """Where a dump goes that makes room for another: beside it, under a name that no dump has."""
    numbered = (folder.with_name(f"{folder.name}.earlier{n}") for n in count(1))
    return next(place for place in numbered if not place.exists())
