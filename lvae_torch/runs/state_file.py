"""A state as a file: written by ``torch.save``, hashed while it is written, and read without running code."""

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
"""Parts of a state that must not hold NaN, because training could never recover from it."""


def read_safely(path: Path) -> dict[str, Any]:
    """Read a dict of tensors, numbers and texts that ``torch.save`` wrote; no code in the file is run.

    Raises:
        DataError: if the file is missing or anything else.
    """
    state = None
    try:
        if zipfile.is_zipfile(path):  # torch.save has written zip files since 2020, bare pickles before
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path}: refused; it is no checkpoint of this program.") from error
    if not isinstance(state, dict):
        raise DataError(f"{path}: refused; it is no checkpoint of this program.")
    return state


def save_state(state: dict[str, Any], file: "HashingFile") -> None:
    """Write a state that ``on_cpu`` returned.

    Raises:
        OSError: if the disk is full or broken.
    """
    try:
        torch.save(state, file)  # type: ignore[arg-type]  # write and flush are all it uses
    except RuntimeError as error:  # torch raises its own error for a full disk
        if isinstance(cause := error.__context__, OSError):
            raise cause from error
        raise


def on_cpu(value: Any, name: str) -> Any:
    """Copy a value to the CPU, so that later training cannot change it; tuples become lists, dicts plain ones.

    Raises:
        TypeError: naming the value by ``name``, if a safe load would refuse it.
    """
    # Compare exact types: a NumPy float is a float too, but weights_only refuses its pickle.
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
    """Size of all tensors in ``value``."""
    match value:
        case Tensor():
            return value.nbytes
        case dict():
            return sum(map(bytes_of, value.values()))
        case list():
            return sum(map(bytes_of, value))
    return 0


def not_finite(state: Mapping[str, Any]) -> str:
    """Name of the first weight or moment that holds NaN or infinity; empty if all are finite."""
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
