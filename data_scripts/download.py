"""Fetching source files: from a mirror folder in place, or over HTTP with resume; verified before they are used."""

import errno
import gzip
import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from filelock import FileLock

from data_scripts.progress import progress
from lvae_torch.errors import CfgError, DataError

CHUNK = 1 << 20
TRIES = 5  # in a row that bring nothing new
PAUSE = 0.5  # seconds after the first failure, doubled after each further one
TIMEOUT = 60.0  # seconds without a byte
BUSY = {408, 425, 429, 500, 502, 503, 504}  # answers that may be better next time
LOCAL = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS}  # troubles that no other try will heal


@dataclass(frozen=True)
class Source:
    """One upstream file."""

    name: str
    """Name below the base URL or in the mirror folder."""
    size: int | None = None
    """Bytes, where known."""
    sha256: str | None = None
    """Hexadecimal, where known."""
    gzip_too: bool = False
    """Whether a place may hold ``name``.gz instead; size and checksum are those of the unpacked bytes."""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, f"{self.name}.gz") if self.gzip_too else (self.name,)


def fetch(source: Source, bases: Sequence[str], raw: Path) -> Path:
    """A local path to the file, verified: in a mirror folder as it lies, otherwise downloaded into ``raw``.

    Args:
        bases: http(s) URLs or folders, tried in order.
    Raises:
        CfgError: for another kind of URL.
        DataError: naming each place tried and what was wrong there.
    """
    problems = []
    for base in bases:
        is_url = base.startswith(("http://", "https://"))
        if "://" in base and not is_url:
            raise CfgError(f"--mirror is {base!r}; use a URL that starts with http:// or https://, or a folder.")
        for name in source.names:
            try:
                if is_url:
                    return _download(f"{base.rstrip('/')}/{name}", raw / name, source)
                return _in_place(Path(base).expanduser() / name, source)
            except DataError as error:
                problems.append(str(error))
    tried = "\n  ".join(problems)
    raise DataError(f"{source.name}: could not be had.\n  {tried}\nGive another place with --mirror URL_or_FOLDER.")


def opened(path: Path, source: Source) -> BinaryIO:
    """The file of ``source`` at ``path``, open for reading and unpacked if it is the gzipped form."""
    is_gzipped = path.name.removesuffix(".part") == f"{source.name}.gz"
    return cast(BinaryIO, gzip.open(path)) if is_gzipped else open(path, "rb")


def check(path: Path, source: Source) -> None:
    """Compare a file with what is known of it; never reads further than its size.

    Raises:
        DataError: naming the file and what differs.
    """
    digest, size = hashlib.sha256(), 0
    try:
        with opened(path, source) as file:
            while (source.size is None or size <= source.size) and (chunk := file.read(CHUNK)):
                digest.update(chunk)
                size += len(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged ({error}).") from error
    if source.size is not None and size != source.size:
        told = f"more than {source.size:,}" if size > source.size else f"{size:,}"
        raise DataError(f"{path}: {told} bytes, but {source.name} has {source.size:,}: cut off, or another file.")
    if source.sha256 is not None and digest.hexdigest() != source.sha256:
        raise DataError(
            f"{path}: sha256 {digest.hexdigest()}, but {source.name} has {source.sha256}: damaged, or another file."
        )


def _in_place(path: Path, source: Source) -> Path:
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    check(path, source)
    return path


def _download(url: str, target: Path, source: Source) -> Path:
    """``url`` into ``target``; what an earlier try left in ``target.part`` is continued, unless it proves wrong."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(target.name + ".lock")):  # the second process waits, and finds the file
        if _is_whole(target, source):  # kept from an earlier time
            return target
        part = target.with_name(target.name + ".part")
        size = source.size if target.name == source.name else None
        for continued in (part.exists(), False):
            _persist(url, part, size)
            try:
                check(part, source)
                break
            except DataError as error:
                part.unlink()
                if not continued:  # else what lay there was of another file: once more, from the start
                    raise DataError(f"{url}: {error}") from error
        part.rename(target)
    return target


def _is_whole(path: Path, source: Source) -> bool:
    if not path.is_file():
        return False
    try:
        check(path, source)
    except DataError:
        path.unlink()  # ours, and damaged since: fetch it again
        return False
    return True


def _persist(url: str, part: Path, size: int | None) -> None:
    """Fetch until all is there; gives up after ``TRIES`` tries in a row that brought nothing."""
    failures, before = 0, -1
    while True:
        try:
            return _continue(url, part, size)
        except urllib.error.HTTPError as error:
            if error.code not in BUSY:
                raise DataError(f"{url}: the server answers {error.code} {error.reason}.") from error
            problem: Exception = error
        except (OSError, EOFError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in LOCAL:
                raise DataError(f"{part}: cannot be written ({error.strerror}). What came is kept.") from error
            problem = error
        have = _length(part)
        failures, before = (failures + 1 if have <= before else 1), have
        if failures == TRIES:
            raise DataError(f"{url}: {problem} ({TRIES} tries; what came is kept, and continued next time).")
        time.sleep(min(PAUSE * 2 ** (failures - 1), 10))


def _continue(url: str, part: Path, size: int | None) -> None:
    """Fetch what is missing of ``part``; a server that cannot continue sends it all again."""
    have = _length(part)
    if size is not None and have == size:
        return
    headers = {"User-Agent": "data_scripts"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # nothing beyond what we have
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return
            part.unlink()
            raise EOFError("what an earlier try left was of another file") from error
        raise
    with response:
        start = have if response.status == 206 else 0
        if start and not (response.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
            part.unlink()
            raise EOFError("the server continued at another place")
        length = response.headers.get("Content-Length")
        _receive(response, url, part, start, start + int(length) if length else None, size)


def _receive(
    response: http.client.HTTPResponse, url: str, part: Path, start: int, total: int | None, size: int | None
) -> None:
    chunk = response.read(CHUNK)
    if not start and chunk.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):  # with status 200
        raise DataError(f"{url}: answers with a web page instead of the file (a login or quota page?).")
    if None not in (size, total) and size != total:
        raise DataError(f"{url}: answers {total:,} bytes, but the file has {size:,}.")
    _check_space(part.parent, (total or 0) - _length(part))
    with open(part, "ab" if start else "wb") as file, progress(part.stem, total, "bytes", start) as advance:
        while chunk:
            file.write(chunk)
            advance(len(chunk))
            chunk = response.read(CHUNK)
    if total is not None and _length(part) < total:
        raise EOFError(f"the connection ended after {_length(part):,} of {total:,} bytes")


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(f"{folder}: {needed:,} bytes are needed and {free:,} are free. Make room, and try again.")
