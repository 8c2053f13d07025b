"""LMDB: a file of records, some of which are pictures."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    found, modified = Pictures(path), _file(path).stat().st_mtime_ns
    with opened_lmdb(path) as environment, lmdb_errors(path), environment.begin(buffers=True) as transaction:
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
    with lmdb_errors(path):
        found = lmdb.open(str(path), readonly=True, lock=False, readahead=False, subdir=path.is_dir(), max_readers=1)
    size, needed = _file(path).stat().st_size, (found.info()["last_pgno"] + 1) * found.stat()["psize"]
    if size < needed:  # to read beyond the end of a mapped file ends the process
        found.close()
        raise DataError(f"{path}: cut off: {size:,} of {needed:,} bytes. Copy it again, with mdb_copy if you can.")
    return found


@contextmanager
def lmdb_errors(path: Path) -> Iterator[None]:
    """Turn what a damaged file makes ``lmdb`` raise into a message that names it."""
    import lmdb

    try:
        yield
    except lmdb.Error as error:
        raise DataError(f"{path}: damaged, or no LMDB ({error}).") from error


def _file(path: Path) -> Path:
    return path / "data.mdb" if path.is_dir() else path
