"""Files that other programs wrote with ``torch.save``, new (zip) or old (pickles); nothing in them is run."""

import pickle
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from lvae_torch.errors import DataError

LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # how files began before torch 1.6
DAMAGE = (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, OSError, MemoryError, zlib.error)
MOST_UPDATES = 10**12  # more are damage
FORBIDDEN = re.compile(r"GLOBAL ([\w.]+)")


def is_torch_zip(path: Path) -> bool:
    """Whether it is a zip archive as ``torch.save`` writes it."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(re.fullmatch(r"[^/]+/data\.pkl", name) for name in archive.namelist())
    except (zipfile.BadZipFile, *DAMAGE):
        return False


def is_legacy(head: bytes) -> bool:
    """Whether a file that begins so is one of ``torch.save`` before torch 1.6."""
    return head.startswith(LEGACY)


def read_torch_file(path: Path) -> Any:
    """What was saved: tensors, numbers, texts, and lists and dicts of them. A zip's tensors stay on disk until used;
    ``check_sums`` holds them against their checksums.

    Raises:
        DataError: if the file is damaged, or holds anything else.
    """
    is_zip = is_torch_zip(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip or None)
    except pickle.UnpicklingError as error:
        if found := FORBIDDEN.search(str(error)):
            raise DataError(
                f"{path}: refused: it asks for {found[1]}, which would run code. Nothing in it was run."
            ) from error
        raise DataError(f"{path}: refused: it is damaged, or no file of tensors and numbers.") from error
    except Exception as error:  # a damaged pickle may raise anything
        raise DataError(f"{path}: refused: it is damaged or was cut short ({type(error).__name__}).") from error


def check_sums(path: Path) -> None:
    """Raises DataError if a zip file differs from what was written; PyTorch itself does not compare the checksums."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, *DAMAGE) as error:
        raise DataError(f"{path}: refused: it is a damaged zip file ({error}).") from error
    if damaged is not None:
        raise DataError(f"{path}: refused: {damaged} in it has another checksum than was written; fetch it again.")


def are_tensors(value: Any) -> bool:
    """Whether ``value`` is a state dict: texts and plain tensors, at least one."""
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(name, str) and is_plain(tensor) for name, tensor in value.items())
    )


def is_plain(value: Any) -> TypeGuard[Tensor]:
    """Whether it is a tensor with a number at each place in memory: not sparse, quantized, nested or without memory."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and not (value.is_meta or value.is_quantized or value.is_nested)
    )


def states_of(value: Any) -> dict[Any, dict[str, Any]]:
    """What a torch optimizer keeps of each parameter, of its state dict; empty where this is none."""
    state = value.get("state") if isinstance(value, dict) else None
    if not isinstance(state, dict):
        return {}
    return {key: kept for key, kept in state.items() if isinstance(kept, dict)}


def updates_of(states: Iterable[Mapping[str, Any]]) -> int:
    """The most updates that one of them counts; 0 where none does."""
    steps = [kept.get("step") for kept in states]
    counts = [float(step) for step in steps if isinstance(step, int | float) or (is_plain(step) and step.numel() == 1)]
    return max([0, *(int(count) for count in counts if 0 <= count <= MOST_UPDATES)])
