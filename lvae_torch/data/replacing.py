"""Whether a new dump may take the place of one of its name."""

import json
from collections.abc import Mapping
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


def check_made_from_the_same(folder: Path, provenance: Mapping[str, Any], content_hash: str | None = None) -> None:
    """Refuse to take the place of a dump that was made from something else.

    A dump whose description nobody can read may be replaced: making it again is what repairs it.

    Args:
        provenance: of the new dump, as far as it is known.
        content_hash: of the new dump, once it is known: then it decides.
    Raises:
        DataError: saying in what they differ.
    """
    try:
        there = read_json(folder / DESCRIPTION)
        before, hash_before = dict(there["provenance"]), there["content_hash"]
    except (DataError, KeyError, TypeError, ValueError):
        return
    said = json.loads(json.dumps(finite(dict(provenance))))  # as it will be read
    differing = [key for key, value in said.items() if before.get(key) != value]
    if content_hash is not None:
        differing = (differing or ["images"]) if content_hash != hash_before else []
    if differing:
        raise DataError(
            f"{folder}: there is a dump of that name already, made from something else (other {', '.join(differing)}); "
            "it stays. Choose another --name, or give --replace."
        )
