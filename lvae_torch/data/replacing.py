"""What becomes of a dump whose name a new one takes."""

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from lvae_torch.data.dump import DESCRIPTION
from lvae_torch.errors import DataError
from lvae_torch.files import read_json


def check_place(folder: Path) -> None:
    """Check that a dump could be put there in the end, before the work.

    Raises:
        DataError: if something other than a folder has its name.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        what = "a link" if folder.is_symlink() else "a file"
        raise DataError(f"{folder}: is {what}, where the dump is to be. Remove it, or choose another --name.")


def differences(folder: Path, description: Mapping[str, Any]) -> Sequence[str]:
    """In what the dump in ``folder`` was made from something else than a new one; nothing if that holds all it holds.

    Nor is there anything to keep of a dump whose description nobody can read: making it again is what repairs it.

    Args:
        description: of the new dump, as a reader will see it.
    """
    try:
        there = read_json(folder / DESCRIPTION)
        before, held = dict(there["provenance"]), _held(there)
    except (DataError, AttributeError, KeyError, TypeError, ValueError):
        return []
    now = _held(description)
    lost = [kind for kind, value in held.items() if value and value != now[kind]]
    if not lost:
        return []
    return [key for key, value in description["provenance"].items() if before.get(key) != value] or lost


def _held(description: Mapping[str, Any]) -> dict[str, Any]:
    """What goes with a dump that is removed, by kind; names of files and all else that is said do not count.

    Raises:
        AttributeError, KeyError or TypeError: if it is not a dump's.
    """
    shards = {split: entry["shards"] for split, entry in description["splits"].items()}
    labels = {split: [shard.get("labels_sha256", "") for shard in of] for split, of in shards.items()}
    return {
        "images": description["content_hash"],
        "splits": {split: entry["count"] for split, entry in description["splits"].items()},
        "labels": {split: of for split, of in labels.items() if any(of)},
        "label_names": description["provenance"].get("label_names"),
    }


def free_place(folder: Path) -> Path:
    """Where a dump goes that makes room for another: beside it, under a name that no dump has."""
    numbered = (folder.with_name(f"{folder.name}.earlier{n}") for n in count(1))
    return next(place for place in numbered if not place.exists())
