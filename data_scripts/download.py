"""Fetching source files: from a mirror folder in place, or over HTTP with resume; verified before they are used."""

import hashlib
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock
from tqdm import tqdm

from lvae_torch.errors import DataError
from lvae_torch.files import sha256_of

CHUNK = 1 << 20
TRIES = 5
TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True)
class Source:
    """One upstream file."""

    name: str
    """Name below the base URL or in the mirror folder."""
    size: int | None = None
    """Bytes, where known."""
    sha256: str | None = None
    """Of the file itself, where known."""
    alternatives: tuple[str, ...] = ()
    """Other names under which a mirror may hold it; size and checksum are then the recipe's to check."""


def fetch(source: Source, bases: Sequence[str], raw: Path) -> Path:
    """A local path to the file: in a mirror folder as it lies, otherwise downloaded into ``raw``.

    Args:
        bases: URLs or folders, tried in order.
    Raises:
        DataError: naming each place tried and what was wrong there.
    """
    problems = []
    for base in bases:
        for name in (source.name, *source.alternatives):
            exact = name == source.name
            try:
                if "://" in base:
                    return _download(f"{base.rstrip('/')}/{name}", raw / name, source if exact else None)
                if (path := Path(base) / name).is_file():
                    if exact:
                        check(path, source)
                    return path
                problems.append(f"{path}: no such file")
            except DataError as error:
                problems.append(str(error))
    raise DataError(
        f"{source.name}: could not be had.\n  " + "\n  ".join(problems) + "\n"
        "Give another place with --mirror URL_or_FOLDER."
    )


def check(path: Path, source: Source) -> None:
    """Compare a file with what is known of it.

    Raises:
        DataError: naming the file and what differs.
    """
    size = path.stat().st_size
    if source.size is not None and size != source.size:
        raise DataError(f"{path}: {size:,} bytes, but {source.name} has {source.size:,}. Delete it and try again.")
    if source.sha256 is not None and (found := sha256_of(path)) != source.sha256:
        raise DataError(f"{path}: sha256 {found}, but {source.name} has {source.sha256}. Delete it and try again.")


def _download(url: str, target: Path, source: Source | None) -> Path:
    """``url`` into ``target``; what an earlier try left in ``target.part`` is continued."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(target.name + ".lock")):
        if not target.is_file():
            part = target.with_name(target.name + ".part")
            _retry(url, part)
            _refuse_html(part, url)
            if source is not None:
                try:
                    check(part, source)
                except DataError:
                    part.unlink()
                    raise
            part.rename(target)
    return target


def _retry(url: str, part: Path) -> None:
    for attempt in range(TRIES):
        try:
            return _continue(url, part)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise DataError(f"{url}: the server answers {error.code} {error.reason}") from error
            problem: Exception = error
        except (urllib.error.URLError, OSError, EOFError) as error:
            problem = error
        if attempt < TRIES - 1:
            time.sleep(min(2**attempt * 0.5, 10))
    raise DataError(f"{url}: {problem} (after {TRIES} tries; what came is kept and will be continued)") from problem


def _continue(url: str, part: Path) -> None:
    """Fetch what is missing of ``part``; a server that cannot continue sends it all again."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is missing, or what we have is longer than the file: the checks will tell
            return
        raise
    with response:
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        total = (have if resumed else 0) + int(length) if length else None
        _check_space(part.parent, (total or 0) - have)
        with open(part, "ab" if resumed else "wb") as file, _progress(url, total, have if resumed else 0) as bar:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        if total is not None and part.stat().st_size < total:
            raise EOFError(f"the connection ended after {part.stat().st_size:,} of {total:,} bytes")


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(f"{folder}: {needed:,} bytes are needed and {free:,} are free; make room.")


@contextmanager
def _progress(url: str, total: int | None, have: int) -> Iterator[Any]:
    """A bar on a terminal, a line every few seconds in a log."""
    interval = 0.2 if sys.stderr.isatty() else 10.0
    name = url.rsplit("/", 1)[-1]
    with tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=name, mininterval=interval) as bar:
        yield bar


def _refuse_html(part: Path, url: str) -> None:
    """Login and quota pages come with status 200."""
    with open(part, "rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        part.unlink()
        raise DataError(f"{url}: answered with a web page instead of the file (a login or quota page?)")


def read_verified(file: BinaryIO, size: int, sha256: str, name: str) -> bytes:
    """Everything in ``file``, which must be ``size`` bytes with that checksum; never reads more.

    Raises:
        DataError: naming the file.
    """
    data = file.read(size + 1)
    if len(data) != size or (found := hashlib.sha256(data).hexdigest()) != sha256:
        told = f"sha256 {found}" if len(data) == size else f"{'more than ' * (len(data) > size)}{size:,} bytes"
        if len(data) < size:
            told = f"{len(data):,} bytes"
        raise DataError(f"{name}: {told}; expected {size:,} bytes with sha256 {sha256}.")
    return data
