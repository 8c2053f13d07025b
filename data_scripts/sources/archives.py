"""Members of anyone's zips and tars: odd names made plain, links followed inside, compressed tars unpacked once."""

import bz2
import gzip
import lzma
import posixpath
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from data_scripts.account import Account
from data_scripts.archives import CHUNK, MOST_EXPANSION, reading, tar_span, whole_tar, zip_members
from data_scripts.spans import BadFileError, Span
from lvae_torch.errors import DataError

ODD = "odd names inside an archive (backslashes, drives, absolute paths), made plain"
LEADS_OUT = "names inside an archive that lead out of it"
DEAD_LINK = "links inside an archive to what is no file in it"
SAME_NAME = "an earlier file of the same name in the archive"


def in_zip(path: Path, account: Account) -> dict[str, Span]:
    """Files of a zip by plain names."""
    files, links = list[tuple[str, Span]](), dict[str, str]()
    for info, is_link, span in zip_members(path):
        if is_link:
            try:
                links[info.filename] = span.read().decode("utf-8", "replace")
            except BadFileError as error:
                raise DataError(f"{path}: {info.filename}: {error}. Get the file again.") from error
        else:
            files.append((info.filename, span))
    return _named(files, links, account)


def in_tar(path: Path, account: Account) -> dict[str, Span]:
    """Files of a plain tar by plain names."""
    with reading(path), tarfile.open(path, "r:") as tar:
        members = whole_tar(path, tar)
    files = [(member.name, tar_span(path, member)) for member in members if member.isfile()]
    # A hard link names the member from the archive's root, a symbolic one from the folder that it lies in.
    links = {m.name: f"/{m.linkname}" if m.islnk() else m.linkname for m in members if m.issym() or m.islnk()}
    for member in members:
        if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
            account.leave_out(member.name, "devices, pipes or sockets")
    return _named(files, links, account)


def plain(name: str) -> str:
    """A member's name with slashes, below the archive's root; "" if it leads out of it."""
    parts = [part for part in re.split(r"[/\\]", re.sub(r"^[A-Za-z]:(?=[/\\]|$)", "", name)) if part not in ("", ".")]
    return "" if ".." in parts else "/".join(parts)


def _named(files: Iterable[tuple[str, Span]], links: dict[str, str], account: Account) -> dict[str, Span]:
    found = dict[str, Span]()
    for name, span in files:
        if not (tidy := plain(name)):
            account.leave_out(name, LEADS_OUT)
            continue
        if tidy in found:
            account.leave_out(tidy, SAME_NAME)
        if tidy != name.removeprefix("./"):
            account.note(tidy, ODD)
        found[tidy] = span
    for name, target in links.items():
        tidy, base = plain(name), "" if target.startswith("/") else posixpath.dirname(name)
        aim = plain(posixpath.normpath(posixpath.join(base, target.lstrip("/"))))
        if tidy and tidy not in found and aim in found:
            found[tidy] = found[aim]
            account.note(tidy, "the same file as another one, by a link")
        else:
            account.leave_out(name, DEAD_LINK)
    return found


def unpacked_tar(path: Path, place: Path) -> Path:
    """A compressed tar as a plain one in the folder ``place``, where any process can read any of its files.

    Raises:
        DataError: if it is no tar, damaged, or grows beyond all measure or the disk.
    """
    target = place / f"{path.name}.tar"
    place.mkdir(parents=True, exist_ok=True)
    most = max(2**30, MOST_EXPANSION * path.stat().st_size)
    opened: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
    with open(path, "rb") as file:
        opener = opened[file.read(2)]
    with reading(path), opener(path, "rb") as packed, open(target, "wb") as plain_tar:
        size = 0
        while chunk := packed.read(CHUNK):
            size += len(chunk)
            if size > min(most, shutil.disk_usage(place).free + size):
                raise DataError(f"{path}: unpacks to more than {size:,} bytes. Make room, or unpack it yourself.")
            if size == len(chunk) and chunk[257:262] != b"ustar" and not tarfile.is_tarfile(path):
                raise DataError(f"{path}: packed, but no tar inside. Unpack it, and give what comes out as --source.")
            plain_tar.write(chunk)
    return target
