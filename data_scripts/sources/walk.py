"""A folder with all that is in it: links followed, and nothing passed over without a word."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from data_scripts.account import Account
from data_scripts.kinds import why_not
from data_scripts.spans import Span

UNREADABLE = "may not be read"
LEADS_BACK = "links that lead back to a folder they lie in"
BY_LINK = "the same file as another one, by a link"


def files_in(root: Path, account: Account, dumps: Path) -> dict[str, Span]:
    """All regular files under ``root``, by their names below it; what is none is told to ``account``.

    Args:
        dumps: a folder that is not entered: contact sheets lie there.
    """
    return {name: _span(path, found) for name, path, found in _walk(root, account, dumps)}


def _span(path: str, found: os.stat_result) -> Span:
    return Span(path, 0, found.st_size, found.st_size, modified=found.st_mtime_ns)


def _walk(root: Path, account: Account, dumps: Path) -> Iterator[tuple[str, str, os.stat_result]]:
    """Name, path and status of each file, folder by folder; not recursive, for trees may be deep."""
    top, own = root.stat(), dumps.stat()
    seen = set[tuple[int, int]]()
    # With each folder goes the chain of those that it lies in: a link to one of them would never end.
    left: list[tuple[str, str, tuple[tuple[int, int], ...]]] = [("", str(root), ((top.st_dev, top.st_ino),))]
    while left:
        inside, folder, chain = left.pop()
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            account.leave_out(f"{inside or '.'}/", UNREADABLE)
            continue
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            found = _status(entry, name, account)
            if found is None:
                continue
            place = (found.st_dev, found.st_ino)
            if not stat.S_ISDIR(found.st_mode):
                if place in seen:
                    account.note(name, BY_LINK)
                seen.add(place)
                yield name, entry.path, found
            elif place == (own.st_dev, own.st_ino):
                account.leave_out(f"{name}/", "the folder of all dumps")
            elif place in chain:
                account.leave_out(f"{name}/", LEADS_BACK)
            else:
                left.append((name, entry.path, (*chain, place)))


def _status(entry: os.DirEntry[str], name: str, account: Account) -> os.stat_result | None:
    """Of the file or folder itself, or what a link leads to; None for what is accounted for here."""
    try:
        found = entry.stat()
    except OSError:
        account.leave_out(name, "links that lead nowhere" if entry.is_symlink() else UNREADABLE)
        return None
    if stat.S_ISDIR(found.st_mode):
        if reason := why_not(name):
            account.leave_out(f"{name}/", reason)
        return None if reason else found
    if not stat.S_ISREG(found.st_mode):
        account.leave_out(name, "devices, pipes or sockets")
        return None
    if not os.access(entry.path, os.R_OK):
        account.leave_out(name, UNREADABLE)
        return None
    return found
