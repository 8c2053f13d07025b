"""One state as a file: what ``torch.save`` writes, hashed on the way, and read back without running code."""

import hashlib
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from lvae_torch.errors import DataError

MUST_BE_FINITE = ("model", "ema", "optimizer")
"""Parts of a state from which training could not go on otherwise, for no step changes what is NaN."""


def read_safely(path: Path) -> dict[str, Any]:
    """The dict of tensors, numbers and texts that ``torch.save`` wrote; no code in the file is run.

    Raises:
        DataError: if it is anything else, or not there.
    """
    state = None
    try:
        if zipfile.is_zipfile(path):  # as torch.save has written since 2020; older files are bare pickles
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path}: refused; it is no checkpoint of this program.") from error
    if not isinstance(state, dict):
        raise DataError(f"{path}: refused; it is no checkpoint of this program.")
    return state


def save_state(state: dict[str, Any], file: "HashingFile") -> None:
    """Write what ``on_cpu`` gave.

    Raises:
        OSError: if the disk is full or broken.
    """
    try:
        torch.save(state, file)  # type: ignore[arg-type]  # write and flush are all it uses
    except RuntimeError as error:  # torch hides a full disk behind an error of its own
        if isinstance(cause := error.__context__, OSError):
            raise cause from error
        raise


def on_cpu(value: Any, name: str) -> Any:
    """A copy that later training cannot change; tuples become lists, and dicts of any kind plain ones.

    Raises:
        TypeError: by ``name``, for what a safe load would refuse.
    """
    # Exact types: a numpy float is a float too, but its pickle is refused by weights_only.
    if value is None or type(value) in (bool, int, float, str):
        return value
    match value:
        case Tensor():
            return value.detach().to("cpu", copy=True)
        case dict():
            return {on_cpu(key, f"{name} key"): on_cpu(item, f"{name}[{key!r}]") for key, item in value.items()}
        case list() | tuple():
            return [on_cpu(item, f"{name}[{i}]") for i, item in enumerate(value)]
    raise TypeError(f"{name} is a {type(value).__name__}; checkpoints hold tensors, numbers, text, lists and dicts.")


def bytes_of(value: Any) -> int:
    """What the tensors in ``value`` take."""
    match value:
        case Tensor():
            return value.nbytes
        case dict():
            return sum(map(bytes_of, value.values()))
        case list():
            return sum(map(bytes_of, value))
    return 0


def not_finite(state: Mapping[str, Any]) -> str:
    """The first of its weights and moments that holds NaN or infinity, by name; empty if none does."""
    return next((name for part in MUST_BE_FINITE for name in _not_finite(state.get(part), part)), "")


def _not_finite(value: Any, name: str) -> Iterator[str]:
    match value:
        case Tensor():
            if value.is_floating_point() and not value.isfinite().all():
                yield name
        case dict():
            for key, item in value.items():
                yield from _not_finite(item, f"{name}.{key}")


class HashingFile:
    """A file that is hashed as it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.digest.update(view)
        self.size += len(view)
        return self._file.write(view)

    def flush(self) -> None:
        self._file.flush()
