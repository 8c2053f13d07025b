"""Pictures as arrays: ``.npy``, ``.npz`` and HDF5."""

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np

from data_scripts.archives import CHUNK, most_unpacked, reading
from data_scripts.rows import Row, bytes_of
from data_scripts.sources.found import Pictures, Place, labels_of, need, one_of
from data_scripts.splits import split_of
from lvae_torch.errors import DataError

COLOURS = (1, 3, 4)
FILES = np.dtype("V1")  # stands for the type of rows that are files of pictures
AXES = ("NHWC", "NCHW", "NHW", "HWC", "CHW", "HW")
IMAGE_WORDS = r"(x|images?|imgs?|data|pictures?|pixels?|arr|features?|samples?)"
LABEL_WORDS = r"(y|labels?|targets?|class(es)?|categor(y|ies))"

Shapes = Mapping[str, tuple[tuple[int, ...], np.dtype]]


def in_npy(path: Path, place: Place) -> Pictures:
    """One array: of many pictures, or of one."""
    with reading(path):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.offset + array.nbytes < path.stat().st_size:
            raise ValueError("more bytes than its head says; several arrays in one file?")
    found = Pictures(path)
    _add(found, "npy", str(path), "", path.stem, array.shape, array.dtype, path, place)
    return found


def in_npz(path: Path, place: Place) -> Pictures:
    """The arrays of a ``.npz`` that are pictures, each unpacked once, with their labels."""
    with reading(path), zipfile.ZipFile(path) as archive:
        sizes = {i.filename.removesuffix(".npy"): i for i in archive.infolist() if i.filename.endswith(".npy")}
        shapes = {name: _npy_head(archive, info.filename) for name, info in sizes.items()}
    found, keys = Pictures(path), chosen(shapes, place.key, path)
    _tell_of_others(keys, shapes, path, place)
    for key in keys:
        target = _unpacked(path, f"{key}.npy", place)
        labels = _labels_beside(key, shapes)
        values = None
        if labels:
            with reading(path, labels), np.load(path, allow_pickle=False) as arrays:
                values = arrays[labels]
        _add(found, "npy", str(target), "", key, *shapes[key], path, place, values)
    return found


def in_hdf5(path: Path, place: Place) -> Pictures:
    """The datasets of an HDF5 file that are pictures, with their labels."""
    try:
        import h5py
    except ImportError as error:
        raise need("hdf5", "h5py", path) from error
    with reading(path), h5py.File(path, "r") as file:
        shapes = dict[str, tuple[tuple[int, ...], np.dtype]]()

        def note(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.shape is not None:
                # A dataset of rows of bytes holds files of pictures.
                is_files = h5py.check_vlen_dtype(item.dtype) == np.uint8
                shapes[name] = item.shape, FILES if is_files else item.dtype

        file.visititems(note)
        found, keys = Pictures(path), chosen(shapes, place.key, path)
        _tell_of_others(keys, shapes, path, place)
        for key in keys:
            labels = _labels_beside(key, shapes)
            values = file[labels][()] if labels else None
            _add(found, "hdf5", str(path), key, key, *shapes[key], path, place, values)
    return found


def chosen(shapes: Shapes, key: str, where: Path) -> list[str]:
    """Which arrays are pictures: the one asked for, those named like splits, or the only one that can be.

    Raises:
        DataError: naming the choices.
    """
    able = [name for name, (shape, dtype) in shapes.items() if _may_be_pictures(shape, dtype)]
    if not key and len(able) > 1:
        in_splits = [name for name in able if split_of(name)]
        if len({split_of(name) for name in in_splits}) == len(in_splits) == len(able):
            return able
        named = [name for name in able if re.fullmatch(IMAGE_WORDS, name.rpartition("/")[2], re.IGNORECASE)]
        able = named if len(named) == 1 else able
    return [one_of(able, key, where, "array")]


def _tell_of_others(keys: Sequence[str], shapes: Shapes, path: Path, place: Place) -> None:
    """Account for arrays that are neither taken nor the labels of one that is."""
    used = {*keys, *(_labels_beside(key, shapes) for key in keys)}
    for name in (name for name in shapes if name not in used):
        place.account.leave_out(f"{path.name}/{name}", "arrays beside those taken, neither pictures nor their labels")


def _may_be_pictures(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    is_numbers = dtype.kind in "uifb" and len(shape) in (3, 4)
    return min(shape, default=0) > 0 and (is_numbers or (dtype == FILES and len(shape) == 1))


def _labels_beside(key: str, shapes: Shapes) -> str:
    """The array of whole numbers, one for each picture of ``key``, whose name says that it is its labels."""
    n, rest = shapes[key][0][0], _without(key, IMAGE_WORDS)
    fits = [
        name
        for name, (shape, dtype) in shapes.items()
        if dtype.kind in "uiUS" and shape in ((n,), (n, 1)) and re.search(LABEL_WORDS, name, re.IGNORECASE)
    ]
    same = [name for name in fits if _without(name, LABEL_WORDS) == rest]
    return next(iter(same), "")


def _without(name: str, words: str) -> str:
    return re.sub(rf"(?<![a-z]){words}(?![a-z])|[\W_\d]", "", name.lower())


def axes_of(shape: tuple[int, ...], asked: str, where: object) -> str:
    """How the axes of an array are called.

    Raises:
        DataError: if its shape is none of pictures, or may be read in two ways.
    """
    told = f"{where}: an array {shape}"
    if asked:
        if len(asked) != len(shape) or ("C" in asked and shape[asked.index("C")] not in COLOURS):
            raise DataError(f"{told}, which is not {asked} with 1, 3 or 4 colours.")
        return asked
    match shape:
        case (_, _, _, colours) if colours in COLOURS:
            return "NHWC"
        case (_, colours, _, _) if colours in COLOURS:
            return "NCHW"
        case (first, _, 3 | 4) if first > 4:
            return "HWC"
        case (first, _, last) if first not in COLOURS and last not in COLOURS:
            return "NHW"
        case (n, numbers) if min(shape) > 1 and not _may_be_rows(n, numbers):
            return "HW"
    raise DataError(
        f"{told} may be no picture, or one in several ways. Say how its axes are called: --axes {'|'.join(AXES)}; or "
        "reshape it, if each row is a picture."
    )


def _may_be_rows(n: int, numbers: int) -> bool:
    """Whether a table of numbers may be pictures, each a row: of 28 x 28 = 784, or 3 x 32 x 32."""
    sides = {colours: isqrt(numbers // colours) for colours in (1, 3)}
    return n != numbers and any(side >= 8 and colours * side**2 == numbers for colours, side in sides.items())


def _add(
    found: Pictures, kind: str, path: str, key: str, name: str, shape: tuple[int, ...], dtype: np.dtype,
    where: Path, place: Place, labels: np.ndarray | None = None,
) -> None:  # fmt: skip
    """Every picture of one array."""
    modified = where.stat().st_mtime_ns
    if dtype == FILES:
        rows, size, axes = range(shape[0]), 0, "N"
    else:
        if dtype.hasobject:
            raise DataError(f"{where}: holds objects, which are never loaded. Save plain numbers.")
        axes = axes_of(shape, place.axes, where if not key else f"{where}: {key}")
        many = axes.startswith("N")
        rows, size = (range(shape[0]), bytes_of(shape[1:], dtype)) if many else (range(-1, 0), bytes_of(shape, dtype))
    names = [f"{name}/{row}" if row >= 0 else where.name for row in rows]
    found.spans.update({n: Row(kind, path, key, row, size, modified, axes) for n, row in zip(names, rows, strict=True)})
    place.account.n_seen += len(names)
    if labels is not None:
        found.labels.update(labels_of(names, labels.reshape(-1).tolist()))


def _npy_head(archive: zipfile.ZipFile, member: str) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(member) as file:
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = header[np.lib.format.read_magic(file)](file)
    return shape, dtype


def _unpacked(path: Path, member: str, place: Place) -> Path:
    """An array of a ``.npz`` as a file of its own."""
    return place.unpack(f"{path}/{member}", _pieces(path, member))


def _pieces(path: Path, member: str) -> Iterator[bytes]:
    with reading(path, member), zipfile.ZipFile(path) as archive, archive.open(member) as packed:
        size = archive.getinfo(member).file_size
        if size > most_unpacked(path):
            raise DataError(f"{path}: {member} unpacks to {size:,} bytes. Unpack it yourself, if you trust it.")
        while piece := packed.read(CHUNK):
            yield piece
