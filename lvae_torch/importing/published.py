"""The published checkpoints that are known to us, and the checksums of those that were imported here.

``published_models.json`` is the list. No file of it was ever seen by us: addresses and numbers are the authors' own, so
the first import of a file records its sha256 and later ones compare.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from lvae_torch.errors import DataError
from lvae_torch.files import read_json, sha256_of, write_json

LIST = Path(__file__).with_name("published_models.json")
RECORD = "imported_models.json"  # in the folder of all runs
BYTES_OF_A_WEIGHT = {"-model-ema.th": 4, "-model.th": 4, "-opt.th": 8, "_checkpoints.zip": 16}
"""By the end of a file's name: float32, and two moments, or all four of a training state."""


@dataclass(frozen=True)
class Published:
    """One published model."""

    name: str
    program: str
    family: str
    """Of ours."""
    dataset: str
    """Our dump of it."""
    bits: int
    published: float
    """-ELBO as its authors report it."""
    unit: Literal["bits/dim", "nats"]
    preset: str | None
    """Of openai/vdvae."""
    parameters: int
    base: str
    """Address of the folder that its files lie in, as the authors say."""
    files: tuple[str, ...]
    """The averaged weights first, where they are a file of their own."""
    state: Literal["as stated", "doubtful", "reported dead", "swapped"]
    remark: str

    def bytes_of(self, file: str) -> int | None:
        """How large a file about is, from the number of weights in it; None for a log."""
        return next((n * self.parameters for end, n in BYTES_OF_A_WEIGHT.items() if file.endswith(end)), None)


@lru_cache(maxsize=1)
def published_models() -> dict[str, Published]:
    """All of the list, by name."""
    entries = json.loads(LIST.read_text(encoding="utf-8"))
    models = [Published(**{**entry, "files": tuple(entry["files"])}) for entry in entries]
    return {model.name: model for model in models}


def check_seen(runs: Path, model: Published, files: Sequence[Path]) -> dict[str, str]:
    """The sha256 of each file by its name, held against what an earlier import recorded.

    Raises:
        DataError: naming a file that has changed since.
    """
    known = _record(runs).get(model.name, {})
    found = {path.name: sha256_of(path) for path in files}
    for name, digest in found.items():
        if known.get(name, digest) != digest:
            raise DataError(
                f"{name}: its sha256 is {digest}, but {model.name} had {known[name]} at its first import here. "
                f"One of both is not the published file; to take this one, remove the entry from {runs / RECORD}."
            )
    return found


def record_seen(runs: Path, model: Published, seen: Mapping[str, str]) -> None:
    """Remember the checksums of files that made a whole run."""
    record = _record(runs)
    write_json(runs / RECORD, {**record, model.name: {**record.get(model.name, {}), **seen}})


def _record(runs: Path) -> dict[str, dict[str, str]]:
    path = runs / RECORD
    if not path.exists():
        return {}
    record = read_json(path)
    if not isinstance(record, dict) or not all(isinstance(entry, dict) for entry in record.values()):
        raise DataError(f"{path}: not the record of imported models; move it away.")
    return record
