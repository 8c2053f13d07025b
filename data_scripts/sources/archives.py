"""Members of anyone's zips and tars: odd names made plain, links followed inside, compressed tars unpacked once."""

import bz2
import gzip
import lzma
import posixpath
import re
import tarfile
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from data_scripts.account import Account
from data_scripts.archives import CHUNK, most_unpacked, reading, tar_span, whole_tar, zip_members
from data_scripts.sources.found import Place
from data_scripts.sources.walk import BY_LINK, LEADS_BACK
from data_scripts.spans import BadFileError, Span
from lvae_torch.errors import DataError

ODD = "odd names inside an archive (backslashes, drives, absolute paths), made plain"
LEADS_OUT = "names inside an archive that lead out of it"
DEAD_LINK = "links inside an archive to what is not in it"
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
    _follow({plain(name): _aim(name, target) for name, target in links.items()}, found, account)
    return found


def _aim(name: str, target: str) -> str:
    """What a link leads to, below the archive's root."""
    base = "" if target.startswith("/") else posixpath.dirname(name)
    return plain(posixpath.normpath(posixpath.join(base, target.lstrip("/"))))


def _follow(links: dict[str, str], found: dict[str, Span], account: Account) -> None:
    """Add what links lead to: files, all that is in a folder, and what other links gave."""
    waiting = {link: aim for link, aim in links.items() if link and aim and not f"{link}/".startswith(f"{aim}/")}
    for link in links.keys() - waiting.keys():
        account.leave_out(link, LEADS_BACK)
    while waiting:
        names = sorted(found)
        reached = {link: inside for link, aim in waiting.items() if (inside := _below(names, aim))}
        if not reached:
            break
        for link, inside in reached.items():
            aim = waiting.pop(link)
            for name in inside:
                if found.setdefault(link + name[len(aim) :], found[name]) is found[name]:
                    account.note(link + name[len(aim) :], BY_LINK)
    for link in waiting:
        account.leave_out(link, DEAD_LINK)


def _below(names: Sequence[str], aim: str) -> list[str]:
    """The file ``aim``, or those of the folder, among sorted names."""
    first = bisect_left(names, f"{aim}/")
    inside = list(takewhile(lambda name: name.startswith(f"{aim}/"), islice(names, first, None)))
    at = bisect_left(names, aim)
    return [aim] if names[at : at + 1] == [aim] else inside


def unpacked_tar(path: Path, place: Place) -> Path:
    """A compressed tar as a plain one, where any process can read any of its files.

    Raises:
        DataError: if it is no tar, damaged, or grows beyond all measure or the disk.
    """
    return place.unpack(f"{path}.tar", _chunks(path))


def _chunks(path: Path) -> Iterator[bytes]:
    """What a compressed tar unpacks to, a part at a time.

    What does not begin as a tar is read to its end all the same: damage can look so, and its checksum comes last.
    """
    size, most, is_tar = 0, most_unpacked(path), True
    opened: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
    with open(path, "rb") as file:
        opener = opened[file.read(2)]
    with reading(path), opener(path, "rb") as packed:
        while chunk := packed.read(CHUNK):
            size += len(chunk)
            if size > most:
                raise DataError(f"{path}: unpacks to more than {most:,} bytes. Unpack it yourself, if you trust it.")
            if size == len(chunk):
                is_tar = chunk[257:262] == b"ustar" or tarfile.is_tarfile(path)
            if is_tar:
                yield chunk
    if not is_tar:
        raise DataError(f"{path}: packed, but no tar inside. Unpack it, and give what comes out as --source.")
