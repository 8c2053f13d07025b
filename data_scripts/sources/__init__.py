"""Own pictures, wherever they are: one reader for each kind of source, all giving ``Pictures``."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from data_scripts.archives import reading
from data_scripts.kinds import (
    CONTAINER_ENDINGS,
    HEAD,
    PICTURE_ENDINGS,
    ending,
    kind_of,
    no_picture,
    why_not,
)
from data_scripts.sources.archives import in_tar, in_zip, unpacked_tar
from data_scripts.sources.arrays import in_hdf5, in_npy, in_npz
from data_scripts.sources.found import Pictures, Place
from data_scripts.sources.records import in_lmdb, is_lmdb
from data_scripts.sources.tables import in_arrow, in_parquet, in_saved_dataset, is_saved_dataset
from data_scripts.sources.walk import files_in
from data_scripts.spans import BadFileError, Span
from lvae_torch.errors import DataError

BESIDE = "archives, arrays or tables beside pictures; give one as --source to take what is in it"
TOO_DEEP = "archives inside an archive inside an archive"
CLASS_FILE = "classes (.cls) beside pictures, read"
PICTURES = set(PICTURE_ENDINGS.values())


def gather(path: Path, place: Place) -> Pictures:
    """All pictures of a folder, an archive, an array or a table.

    Raises:
        DataError: if ``path`` is none of these, damaged, or without pictures.
    """
    if not path.exists():
        raise DataError(f"{path}: no such folder or file.")
    if is_saved_dataset(path):
        found = in_saved_dataset(path, place)
    elif is_lmdb(path):
        found = in_lmdb(path, place)
    elif path.is_dir():
        found = _of_files(path, files_in(path, place.account, place.dumps), place, levels=2)
    else:
        found = _in_file(path, place, levels=1)
    if not found.spans:
        told = "; ".join(f"{len(names):,} {why}" for why, names in place.account.left_out.items())
        raise DataError(f"{path}: holds no pictures" + (f" (seen: {told})." if told else "."))
    return found


def _in_file(path: Path, place: Place, levels: int) -> Pictures:
    """One file that holds pictures, by its first bytes."""
    with open(path, "rb") as file:
        kind = kind_of(file.read(HEAD))
    end = path.suffix.lower()
    readers: dict[str, Callable[[Path, Place], Pictures]] = {
        "npy": in_npy, "hdf5": in_hdf5, "parquet": in_parquet, "arrow": in_arrow,
    }  # fmt: skip
    if kind == "zip" and end == ".npz":
        return in_npz(path, place)
    if is_lmdb(path):
        return in_lmdb(path, place)
    if kind in readers:
        return readers[kind](path, place)
    if kind == "zip":
        return _of_files(path, in_zip(path, place.account), place, levels)
    if kind == "packed":
        return _of_files(path, in_tar(unpacked_tar(path, place), place.account), place, levels)
    if kind in PICTURES:
        status = path.stat()
        place.account.n_seen += 1
        span = Span(str(path), 0, status.st_size, status.st_size, modified=status.st_mtime_ns)
        return Pictures(path, {path.name: span})
    if end == ".arrow":  # a stream has no magic
        return in_arrow(path, place)
    if end == ".tar" or _is_tar(path):
        return _of_files(path, in_tar(path, place.account), place, levels)
    what = {"7z": "a 7z archive", "rar": "a rar archive", "zstd": "packed by zstd"}.get(
        kind, "none of these" if path.stat().st_size else "an empty file"
    )
    raise DataError(
        f"{path}: neither a folder nor a .zip or .tar file, nor an array (.npy, .npz, .h5) or a table (.parquet, "
        f".arrow, LMDB), but {what}. Unpack or convert it, and give what comes out as --source."
    )


def _is_tar(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(512)[257:262] == b"ustar"


def _of_files(path: Path, files: dict[str, Span], place: Place, levels: int) -> Pictures:
    """The pictures among files; or, where there are none, what the archives, arrays and tables among them hold."""
    account, found = place.account, Pictures(path)
    containers = dict[str, Span]()
    for name, span in files.items():
        if reason := why_not(name):
            account.leave_out(name, reason)
        elif ending(name) in PICTURE_ENDINGS:
            found.spans[name] = span
        elif CONTAINER_ENDINGS.search(name):
            containers[name] = span
        elif _head(span, path, name) in PICTURES:
            found.spans[name] = span
        elif ending(name) != "cls":
            account.leave_out(name, no_picture(name))
    account.n_seen += len(found.spans)
    _read_classes(found, files, place)
    if found.spans or not levels:
        for name in containers:
            account.leave_out(name, BESIDE if found.spans else TOO_DEEP)
        return found
    for name, span in sorted(containers.items()):
        inner = _contained(path, name, span, place, levels - 1)
        found.add(inner, prefix=_prefix(name, inner.names) if len(containers) > 1 else "")
    return found


def _prefix(name: str, inner: Sequence[str]) -> str:
    """What goes before the names that ``name`` holds: some begin with it already, as rows of tables do."""
    folder, slash, base = name.rpartition("/")
    begin_so = all(one == base or one.startswith(f"{base}/") for one in inner)
    return folder + slash if begin_so else f"{name}/"


def _contained(path: Path, name: str, span: Span, place: Place, levels: int) -> Pictures:
    """What a file in a folder or an archive holds; out of an archive it is copied first."""
    if not span.is_zipped and span.offset == 0 and Path(span.path).name == Path(name).name:
        return _in_file(Path(span.path), place, levels)
    try:
        target = place.unpack(f"{path}/{name}", span.pieces())
    except BadFileError as error:
        raise DataError(f"{path}: {name}: {error}. Get the file again.") from error
    return _in_file(target, place, levels)


def _head(span: Span, path: Path, name: str) -> str:
    try:
        return kind_of(span.head(HEAD))
    except BadFileError as error:
        raise DataError(f"{path}: {name}: {error}. Get the file again.") from error


def _read_classes(found: Pictures, files: dict[str, Span], place: Place) -> None:
    """WebDataset's ``key.cls``, a number or a word, beside ``key.jpg``."""
    texts = {name.removesuffix(".cls"): span for name, span in files.items() if ending(name) == "cls"}
    for name in texts:
        place.account.leave_out(f"{name}.cls", CLASS_FILE)
    for name in found.spans:
        if span := texts.get(_key(name)):
            with reading(found.path, f"{_key(name)}.cls"):
                text = span.read().decode().strip()
            found.labels[name] = int(text) if re.fullmatch(r"-?\d{1,18}", text, re.ASCII) else text


def _key(name: str) -> str:
    """A sample's key: its name up to the first dot of its last part."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


__all__ = ["Pictures", "Place", "gather"]
