"""Where somebody's own copy of an upstream file lies: under its name or another usual one, deeper, or unpacked."""

import hashlib
import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from data_scripts.upstream import Source
from lvae_torch.errors import DataError

DEPTH = 4  # folders below the one that was named


def locate(base: Path, source: Source) -> Path:
    """The file, or the folder that it was unpacked into.

    Args:
        base: a folder; or one of a set's files, beside which the others lie.
    Raises:
        DataError: if it is not there.
    """
    names = (*source.names, *source.also)
    if base.is_file():
        if base.name in names or base.name.startswith(Path(source.name).stem.removesuffix(".tar")):
            return base
        base = base.parent
    for name in names:
        if (base / name).is_file():
            return base / name
    if base.is_dir():
        files = sorted(_files(base), key=lambda path: (path.count("/"), path))
        for name in names:
            if found := next((path for path in files if path.rpartition("/")[2] == name), ""):
                return base / found
        if source.unpacked and any(_is_member(path, source.unpacked) for path in files):
            return _unpacked_folder(base, source, files)
    raise DataError(f"{base / source.name}: no such file" + (", nor unpacked." if source.unpacked else "."))


def _files(base: Path) -> Iterator[str]:
    for folder, inner, files in os.walk(base, followlinks=True):
        below = Path(folder).relative_to(base)
        if len(below.parts) >= DEPTH:
            inner.clear()
        yield from ((below / file).as_posix() for file in files)


def _is_member(path: str, pattern: str) -> bool:
    return fnmatch(path.rpartition("/")[2], pattern)


def _unpacked_folder(base: Path, source: Source, files: list[str]) -> Path:
    """The folder of the archive's own name, if there is one: other sets may lie beside it."""
    stem = source.name.partition(".")[0]
    for path in files:
        parts = path.split("/")[:-1]
        if stem in parts and _is_member(path, source.unpacked):
            return base.joinpath(*parts[: parts.index(stem) + 1])
    return base


def is_upstreams_unpacked(folder: Path, source: Source) -> bool:
    """Whether all members whose checksums are known are upstream's to the byte."""
    found = {path.rpartition("/")[2]: folder / path for path in _files(folder)}
    return bool(source.members) and all(
        name in found and md5_of(found[name]) == md5 for name, md5 in source.members.items()
    )


def md5_of(path: Path) -> str:
    """Hexadecimal md5 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
