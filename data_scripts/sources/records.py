"""LMDB: a file of records, some of which are pictures."""

from pathlib import Path
from typing import Any

from data_scripts.archives import reading
from data_scripts.kinds import PICTURE_ENDINGS, kind_of
from data_scripts.rows import Row
from data_scripts.sources.found import Pictures, Place, need
from lvae_torch.errors import DataError

FORMATS = set(PICTURE_ENDINGS.values())


def is_lmdb(path: Path) -> bool:
    """Whether ``path`` is a folder of LMDB, or a file named like one."""
    return (path / "data.mdb").is_file() or (path.is_file() and path.suffix.lower() in (".lmdb", ".mdb"))


def in_lmdb(path: Path, place: Place) -> Pictures:
    """All records that are files of pictures; the others are accounted for."""
    found, data = Pictures(path), path / "data.mdb" if path.is_dir() else path
    modified = data.stat().st_mtime_ns
    with reading(path), opened_lmdb(path) as environment, environment.begin(buffers=True) as transaction:
        for key, value in transaction.cursor():
            raw = bytes(key)
            name = raw.decode("ascii") if raw.isascii() and raw.decode("ascii").isprintable() else raw.hex()
            if kind_of(bytes(value[:64])) in FORMATS:
                place.account.n_seen += 1
                found.spans[name] = Row("lmdb", str(path), raw.hex(), 0, len(value), modified)
            else:
                place.account.leave_out(name, "records that are no picture's file")
    return found


def opened_lmdb(path: Path) -> Any:
    """The environment, for reading only; without locks, which would be written beside it.

    Raises:
        DataError: if it is damaged, or ``lmdb`` is not installed.
    """
    try:
        import lmdb
    except ImportError as error:
        raise need("lmdb", "lmdb", path) from error
    try:
        return lmdb.open(str(path), readonly=True, lock=False, readahead=False, subdir=path.is_dir(), max_readers=1)
    except lmdb.Error as error:
        raise DataError(f"{path}: damaged, or no LMDB ({error}).") from error
