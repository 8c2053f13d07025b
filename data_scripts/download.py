"""Fetching source files: from a mirror folder in place, or over HTTP with resume; verified before they are used."""

import base64
import errno
import hashlib
import http.client
import re
import shutil
import string
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path
from typing import IO

from data_scripts.copies import is_upstreams_unpacked, locate, md5_of
from data_scripts.progress import progress
from data_scripts.upstream import CHUNK, Seen, Source, check
from lvae_torch.data.sharing import locked, make_shared_folder, share
from lvae_torch.errors import CfgError, DataError
from lvae_torch.files import place_of, sha256_of

TRIES = 5  # in a row that bring nothing new
PAUSE = 0.5  # seconds after the first failure, doubled after each further one
TIMEOUT = 60.0  # seconds without a byte
BUSY = {408, 425, 429, 500, 502, 503, 504}  # answers that may be better next time
LOCAL = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS}  # troubles that no other try will heal


@dataclass(frozen=True)
class Found:
    """A file that was had."""

    path: Path
    sha256: str
    place: str
    is_upstream: bool
    """Whether it is upstream's to the byte, or came from there."""


def fetch(source: Source, bases: Sequence[str], raw: Path, other_editions: bool = False) -> Found:
    """The file, verified: in a folder as it lies, otherwise downloaded into ``raw``.

    Args:
        bases: http(s) URLs or folders, tried in order.
        other_editions: take a file of another size than upstream's too; one of the same size must be the same.
    Raises:
        CfgError: for another kind of URL.
        DataError: naming each place tried and what was wrong there.
    """
    problems = []
    for base in bases:
        is_url = is_address(base)
        for name in source.names if is_url else [""]:
            try:
                if is_url:
                    path, seen = _download(f"{base.rstrip('/')}/{name}", raw / name, source, other_editions)
                else:
                    path, seen = _own_copy(place_of(base, "--source or --mirror"), source, other_editions)
                return Found(path, seen.sha256, shown(base), seen.is_upstream)
            except DataError as error:
                problems.append(str(error))
    tried = "\n  ".join(problems)
    raise DataError(f"{source.name}: could not be had.\n  {tried}\nGive another place with --mirror URL_or_FOLDER.")


def fetch_url(url: str, raw: Path) -> Found:
    """The file at an address that a person named, downloaded into ``raw``; nothing is known of it beforehand.

    Raises:
        DataError: saying what is wrong.
    """
    name = Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name or "source"
    # Two addresses may end in one name.
    target = raw / f"{hashlib.sha256(url.encode()).hexdigest()[:8]}_{name[-100:]}"
    path, seen = _download(url, target, Source(target.name), other_editions=True)
    return Found(path, seen.sha256, shown(url), is_upstream=False)


def is_address(place: str) -> bool:
    """Whether ``place`` is an http(s) address, rather than a path.

    Raises:
        CfgError: for another kind of address, or one without a host.
    """
    if "://" not in place:
        return False
    try:
        parts = urllib.parse.urlsplit(place)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        is_good = False
    if not is_good:
        raise CfgError(
            f"{shown(place)!r}: use an address that starts with http:// or https:// and a host, or a folder."
        )
    return True


def shown(url: str) -> str:
    """``url`` as it may be shown: user, password and what is asked for, perhaps by a token, are nobody's business."""
    return re.sub(r"[?#].*", "?...", _without_user(url), flags=re.DOTALL)


def _without_user(url: str) -> str:
    return re.sub(r"(?<=://)[^/?#]*@", "", url)


def _own_copy(base: Path, source: Source, other_editions: bool) -> tuple[Path, Seen]:
    """A file of upstream's name is compared with what is known of it; another form of it is told as such."""
    path = locate(base, source)
    if path.is_dir():
        return path, Seen("unpacked", is_upstreams_unpacked(path, source))
    if path.name in source.also:
        known = source.members.get(path.name)
        return path, Seen(sha256_of(path), known is not None and md5_of(path) == known)
    return path, check(path, source, other_editions)


def _download(url: str, target: Path, source: Source, other_editions: bool) -> tuple[Path, Seen]:
    """``url`` into ``target``; what an earlier try left in ``target.part`` is continued, unless it proves wrong."""
    make_shared_folder(target.parent)
    with locked(target.with_name(target.name + ".lock"), target.name, wait=True):  # the second finds the file
        if seen := _kept(target, source, other_editions):
            return target, seen
        part = target.with_name(target.name + ".part")
        size = source.size if target.name == source.name and not other_editions else None
        for continued in (part.exists(), False):
            _persist(url, part, size)
            try:
                seen = check(part, source, other_editions)
                break
            except DataError as error:
                part.unlink()
                if not continued:  # else what lay there was of another file: once more, from the start
                    raise DataError(f"{shown(url)}: {error}") from error
        part.rename(target)
        share(target)
    assert seen is not None
    return target, seen


def _kept(path: Path, source: Source, other_editions: bool) -> Seen | None:
    """What is known of a file that is there from an earlier time, if it is good."""
    if not path.is_file():
        return None
    try:
        return check(path, source, other_editions)
    except DataError:
        path.unlink()  # ours, and damaged since: fetch it again
        return None


def _persist(url: str, part: Path, size: int | None) -> None:
    """Fetch until all is there; gives up after ``TRIES`` tries in a row that brought nothing."""
    failures, before = 0, -1
    while True:
        try:
            return _continue(url, part, size)
        except urllib.error.HTTPError as error:
            if error.code not in BUSY:
                told = " ".join(str(error.reason).split())
                raise DataError(f"{shown(url)}: the server answers {error.code} {told}.") from error
            problem: Exception = error
        except (OSError, EOFError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in LOCAL:
                raise DataError(f"{part}: cannot be written ({error.strerror}). What came is kept.") from error
            problem = error
        have = _length(part)
        failures, before = (failures + 1 if have <= before else 1), have
        if failures == TRIES:
            raise DataError(f"{shown(url)}: {problem} ({TRIES} tries; what came is kept, and continued next time).")
        time.sleep(min(PAUSE * 2 ** (failures - 1), 10))


def _continue(url: str, part: Path, size: int | None) -> None:
    """Fetch what is missing of ``part``; a server that cannot continue sends it all again."""
    have = _length(part)
    if size is not None and have == size:
        return
    headers = {"User-Agent": "data_scripts"} | ({"Range": f"bytes={have}-"} if have else {}) | _authorization(url)
    # People copy addresses with blanks and accents in them.
    asked = urllib.request.Request(urllib.parse.quote(_without_user(url), safe=string.punctuation), headers=headers)
    try:
        response = urllib.request.build_opener(_Redirects).open(asked, timeout=TIMEOUT)
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
        if response.status == 206 and not (response.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
            part.unlink(missing_ok=True)
            raise EOFError("the server continued at another place")
        length = response.headers.get("Content-Length") or ""
        _receive(response, url, part, start, start + int(length) if length.isdecimal() else None, size)


def _authorization(url: str) -> dict[str, str]:
    """The head that sends what stands before the @ in an address; urllib itself takes it for a part of the host."""
    parts = urllib.parse.urlsplit(url)
    if parts.username is None:
        return {}
    told = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
    return {"Authorization": f"Basic {base64.b64encode(told.encode()).decode()}"}


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server to another place, but tells a password to nobody else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        there = super().redirect_request(req, fp, code, msg, headers, newurl)
        if there is not None and (there.type, there.host) != (req.type, req.host):
            there.remove_header("Authorization")
        return there


def _is_web_page(chunk: bytes) -> bool:
    """Whether a file begins as a web page does, also behind a byte order mark, an XML head or comments."""
    text = chunk[:4096].removeprefix(b"\xef\xbb\xbf").lower()
    return re.match(rb"(\s|<\?xml[^>]*>|<!--.*?-->)*<(!doctype\s+html|html)", text, re.DOTALL) is not None


def _receive(
    response: http.client.HTTPResponse, url: str, part: Path, start: int, total: int | None, size: int | None
) -> None:
    chunk = response.read(CHUNK)
    if not start and _is_web_page(chunk):  # with status 200
        raise DataError(f"{shown(url)}: answers with a web page instead of the file (a login or quota page?).")
    if None not in (size, total) and size != total:
        raise DataError(f"{shown(url)}: answers {total:,} bytes, but the file has {size:,}.")
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
