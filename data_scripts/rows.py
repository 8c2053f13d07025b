"""Pictures that are rows of arrays and tables: light to carry from process to process, read where they are needed.

Each kind of file has one opener here, which gives a function from row to picture; it is kept for the next row.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from data_scripts.spans import BadFileError

Value = bytes | np.ndarray


class Readable(Protocol):
    """One picture, wherever it lies; any process can read it."""

    @property
    def size(self) -> int: ...

    @property
    def modified(self) -> int: ...

    @property
    def crc(self) -> int | None: ...

    def read(self, most: int | None = None) -> Value: ...

    def head(self, n: int) -> bytes: ...


class Row(NamedTuple):
    """One picture of an array or a table."""

    kind: str
    """A name of ``OPENERS``."""
    path: str
    key: str
    """Which array or column; of LMDB, the record's key in hexadecimal."""
    row: int
    size: int
    """Bytes, where they are known before reading."""
    modified: int = 0
    axes: str = ""
    """Of an array: how its axes are called."""
    crc: int | None = None

    def read(self, most: int | None = None) -> Value:
        """The picture: its file's bytes, or its pixels as (H, W) or (H, W, C).

        Raises:
            BadFileError: saying what is wrong.
        """
        try:
            value = OPENERS[self.kind](self.path, self.key, self.modified)(self.row)
        except Exception as error:  # each library has its own for what is damaged
            raise BadFileError(f"damaged ({error})") from error
        if isinstance(value, np.ndarray):
            return _as_hwc(value, self.axes)
        if most and len(value) > most:
            raise BadFileError(f"has more than {most:,} bytes")
        return value

    def head(self, n: int) -> bytes:
        value = self.read()
        return value[:n] if isinstance(value, bytes) else b""


def _as_hwc(pixels: np.ndarray, axes: str) -> np.ndarray:
    return np.moveaxis(pixels, 0, -1) if axes.endswith("CHW") else pixels


Reader = Callable[[int], Value]


@lru_cache(4)
def _npy(path: str, key: str, modified: int) -> Reader:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return lambda row: np.asarray(array if row < 0 else array[row])


@lru_cache(4)
def _hdf5(path: str, key: str, modified: int) -> Reader:
    import h5py

    data = h5py.File(path, "r", rdcc_nbytes=64 * 2**20)[key]

    def read(row: int) -> Value:
        value = np.asarray(data[row] if row >= 0 else data[()])
        # Files of pictures are kept as rows of bytes of any length.
        return value.tobytes() if value.ndim == 1 and value.dtype == np.uint8 and data.ndim == 1 else value

    return read


@lru_cache(4)
def _arrow(path: str, key: str, modified: int) -> Reader:
    import pyarrow as pa

    table = pa.Table.from_batches(arrow_batches(path))
    column = table.column(key)
    dtype = pixel_dtype(column.type)
    return lambda row: picture_in(column[row].as_py(), dtype)


def arrow_batches(path: str) -> list[Any]:
    """Record batches of an Arrow file or stream, mapped from disk."""
    import pyarrow as pa

    source = pa.memory_map(path)
    if source.read(6) == b"ARROW1":
        file = pa.ipc.open_file(source)
        return [file.get_batch(k) for k in range(file.num_record_batches)]
    source.seek(0)
    return list(pa.ipc.open_stream(source))


@lru_cache(2)
def _parquet(path: str, key: str, modified: int) -> Reader:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    dtype = pixel_dtype(file.schema_arrow.field(key).type)
    ends = np.cumsum([file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)])

    @lru_cache(1)
    def group(k: int) -> Any:
        return file.read_row_group(k, columns=[key]).column(key)

    def read(row: int) -> Value:
        k = int(np.searchsorted(ends, row, side="right"))
        return picture_in(group(k)[row - (int(ends[k - 1]) if k else 0)].as_py(), dtype)

    return read


def _lmdb(path: str, key: str, modified: int) -> Reader:
    # The environment is kept, not one reader for each key.
    def read(row: int) -> Value:
        with _environment(path, modified).begin() as transaction:
            value = transaction.get(bytes.fromhex(key))
        if value is None:
            raise KeyError(key)
        return bytes(value)

    return read


@lru_cache(2)
def _environment(path: str, modified: int) -> Any:
    from data_scripts.sources.records import opened_lmdb

    return opened_lmdb(Path(path))


def pixel_dtype(kind: Any) -> np.dtype | None:
    """Of the numbers in nested lists; None for a column of something else."""
    import pyarrow as pa

    if isinstance(kind, pa.ExtensionType):
        kind = kind.storage_type
    depth = 0
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind, depth = kind.value_type, depth + 1
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return np.dtype(kind.to_pandas_dtype()) if depth in (2, 3) and is_number else None


def picture_in(value: Any, dtype: np.dtype | None) -> Value:
    """The picture in a cell of a table: bytes, Hugging Face's {bytes, path}, or nested lists of pixels.

    Raises:
        ValueError: saying what it is instead.
    """
    if isinstance(value, dict):
        if value.get("bytes") is None:
            raise ValueError(
                f"names the file {value.get('path')!r} and has no bytes; save the set with its files inside"
            )
        value = value["bytes"]
    if isinstance(value, bytes):
        return value
    if value is None or dtype is None:
        raise ValueError("an empty cell" if value is None else f"a cell of {type(value).__name__}, no picture")
    pixels = np.asarray(value, dtype=dtype)
    is_planes = pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4) and pixels.shape[2] not in (1, 3, 4)
    return np.moveaxis(pixels, 0, -1) if is_planes else pixels


OPENERS: dict[str, Callable[[str, str, int], Reader]] = {
    "npy": _npy,
    "hdf5": _hdf5,
    "arrow": _arrow,
    "parquet": _parquet,
    "lmdb": _lmdb,
}


def bytes_of(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Bytes of one picture."""
    return math.prod(shape) * dtype.itemsize
