"""Writes files whole or not at all: write aside, flush to disk, rename."""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

from lvae_torch.errors import CfgError, DataError

NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")

BROKEN_ARRAY = (OSError, ValueError, EOFError, MemoryError, SyntaxError, TokenError, TypeError, OverflowError)
"""Exceptions that NumPy raises for a damaged ``.npy``, whose header it parses as a Python literal."""


def check_name(name: str, what: str) -> str:
    """Return ``name`` if it is one safe path component, which cannot leave its folder.

    Raises:
        CfgError: for empty names, separators, ``..``, or a leading dot or dash.
    """
    if not NAME.fullmatch(name):
        raise CfgError(
            f"{what} is {name!r}; use 1 to 128 letters, digits, '.', '_' or '-', no '..', not starting with '.' or '-'."
        )
    return name


def expanded(path: str) -> str:
    """``path`` with ``~`` and variables such as ``$HOME`` replaced, as a shell does.

    Raises:
        ValueError: for a variable that is not set, or a home that there is not.
    """
    whole = os.path.expanduser(os.path.expandvars(path))  # noqa: PTH111  # Path would raise for some, and take others
    if match := re.search(r"\$(\w+|\{[^}]*\})", whole):
        raise ValueError(f"the environment variable {match[1].strip('{}')} of {path!r} is not set")
    if whole.startswith("~"):
        raise ValueError(f"there is no home folder for {path!r}")
    return whole


def place_of(path: str | Path, what: str) -> Path:
    """``path``, ``expanded``.

    Raises:
        CfgError: naming ``what``, the setting or argument, if that cannot be done.
    """
    try:
        return Path(expanded(str(path)))
    except ValueError as error:
        raise CfgError(f"{what} is {str(path)!r}: {error}. Write the whole path.") from error


@contextmanager
def atomic_write(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """Open ``path`` for writing; it appears under its name only once it is whole and on disk.

    Unless ``durable``, a power cut may take it: for what is written again soon.

    A kill or an error leaves the old file as it was (and at most one ``.tmp`` beside it).

    Raises:
        DataError: if the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # a file system that turned read-only refuses this too
            temporary.unlink()
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}). Free some space or choose another folder; "
            "what was saved before is intact."
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Make ``path`` and its missing parents so that they survive a power cut."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)


def append_text(path: Path, text: str) -> None:
    """Append to a small UTF-8 text file.

    Raises:
        DataError: if the disk is full or the file cannot be written.
    """
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}). Free some space and repeat the command."
        ) from error


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Atomic replacement of a small UTF-8 text file."""
    with atomic_write(path, durable) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    """Atomic replacement of a small JSON file, keys in the order given; null for what JSON has no number for."""
    write_text(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n", durable)


def finite(value: Any) -> Any:
    """``value`` with every NaN or infinite number in it replaced by None."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
    """The JSON value in ``path``.

    Raises:
        DataError: naming the file, if it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}).") from error


def known_of(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; nothing where there is none that can be read."""
    try:
        found = read_json(path)
    except DataError:
        return {}
    return found if isinstance(found, dict) else {}


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
