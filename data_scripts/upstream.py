"""What is known of upstream's files, and whether a file is one of them to the byte."""

import gzip
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from lvae_torch.errors import DataError

CHUNK = 1 << 20


@dataclass(frozen=True)
class Source:
    """One upstream file."""

    name: str
    """Name below the base URL or in the mirror folder."""
    size: int | None = None
    """Bytes, where known."""
    sha256: str | None = None
    """Hexadecimal, where known."""
    md5: str | None = None
    git_blob: str | None = None
    """The id that git gives these bytes, for files that lie in a repository."""
    gzip_too: bool = False
    """Whether a place may hold ``name``.gz instead; size and checksum are those of the unpacked bytes."""
    origin: str = ""
    """Where a person finds it, if no program can fetch it."""
    also: tuple[str, ...] = ()
    """Names that other programs give to what is in it, in somebody's own folder."""
    unpacked: str = ""
    """Pattern of a member's name: a folder that has such is taken for the archive, unpacked."""
    members: Mapping[str, str] = field(default_factory=dict)
    """md5 of members, or of the forms in ``also``, by name."""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, f"{self.name}.gz") if self.gzip_too else (self.name,)

    @property
    def checksums(self) -> dict[str, str]:
        """What is known, by kind."""
        known = {"sha256": self.sha256, "md5": self.md5, "git blob id": self.git_blob}
        return {kind: checksum for kind, checksum in known.items() if checksum}

    def __str__(self) -> str:
        size = f", {self.size:,} bytes" if self.size else ""
        return f"{self.name}{size}" + "".join(f", {kind} {value}" for kind, value in self.checksums.items())


def opened(path: Path, source: Source) -> BinaryIO:
    """The file of ``source`` at ``path``, open for reading and unpacked if it is the gzipped form."""
    is_gzipped = path.name.removesuffix(".part") == f"{source.name}.gz"
    return cast(BinaryIO, gzip.open(path)) if is_gzipped else open(path, "rb")


@dataclass(frozen=True)
class Seen:
    """What a look at the bytes of a file told."""

    sha256: str
    is_upstream: bool


def check(path: Path, source: Source, other_editions: bool = False) -> Seen:
    """Compare a file with what is known of it; never reads further than its size, where that must be right.

    Raises:
        DataError: naming the file and what differs.
    """
    most = None if other_editions else source.size
    size, found = _digest(path, source, most)
    if source.size is not None and size != source.size:
        if other_editions:
            return Seen(found["sha256"], is_upstream=False)
        told = f"more than {source.size:,}" if size > source.size else f"{size:,}"
        raise DataError(f"{path}: {told} bytes, but {source.name} has {source.size:,}: cut off, or another file.")
    for kind, known in source.checksums.items():
        if found[kind] != known:
            if other_editions and source.size is None:
                return Seen(found["sha256"], is_upstream=False)
            raise DataError(f"{path}: {kind} {found[kind]}, but {source.name} has {known}: damaged, or another file.")
    is_told_apart = bool(source.checksums)
    return Seen(found["sha256"], is_upstream=is_told_apart or not other_editions)


def _digest(path: Path, source: Source, most: int | None) -> tuple[int, dict[str, str]]:
    """Bytes of the unpacked file, and its checksums by kind; reads only a little more than ``most`` bytes."""
    digests = {"sha256": hashlib.sha256()}
    if source.md5:
        digests["md5"] = hashlib.md5(usedforsecurity=False)
    if source.git_blob:
        digests["git blob id"] = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    size = 0
    try:
        with opened(path, source) as file:
            while (most is None or size <= most) and (chunk := file.read(CHUNK)):
                size += len(chunk)
                for digest in digests.values():
                    digest.update(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged ({error}).") from error
    return size, {kind: digest.hexdigest() for kind, digest in digests.items()}
