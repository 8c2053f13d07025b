"""File formats of the datasets, read without running anything that is in them, and in bounded memory."""

import gzip
import io
import math
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, ClassVar, cast

import numpy as np

from data_scripts import spans
from data_scripts.archives import reading
from data_scripts.arrays import PART_BYTES
from lvae_torch.errors import DataError

# --- idx: MNIST -------------------------------------------------------------------------------------------------------


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array of an idx file, gzipped or not: (n, H, W) of images, (n,) of labels.

    Raises:
        DataError: if it is no such file.
    """
    with reading(path), unpacked(path) as file:
        magic = int.from_bytes(file.read(4), "big")
        shape = np.frombuffer(file.read(4 * (magic & 0xFF)), dtype=">i4").tolist()
        size = math.prod(shape)
        if not 0 < size <= spans.MAX_MEMBER:
            raise ValueError(f"{size:,} bytes, at most {spans.MAX_MEMBER:,} are read")
        data = np.frombuffer(file.read(size + 1), dtype=np.uint8)  # reading to the end compares the check sum
    if magic not in (2049, 2051) or data.size != size:
        raise DataError(f"{path}: not an idx file of images or labels (magic {magic}, {data.size:,} bytes).")
    return data.reshape(shape)


def unpacked(path: Path) -> IO[bytes]:
    """A file open for reading, whether it is gzipped or not."""
    with open(path, "rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if is_packed else open(path, "rb")


# --- pickles: CIFAR-10, the course's archive --------------------------------------------------------------------------


class ArraysOnly(pickle.Unpickler):
    """Builds NumPy arrays and plain values; whatever else a pickle asks for is refused."""

    ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
        ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
        ("_codecs", "encode"): lambda text, encoding: text.encode(encoding),
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"asks for {module}.{name}, which no array needs") from None


def read_pickle(data: bytes, path: Path) -> dict[str, Any]:
    """A pickled dict of arrays, lists and text, also one of Python 2.

    Raises:
        DataError: naming ``path``, if it is damaged or holds anything else.
    """
    try:
        value = ArraysOnly(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a damaged pickle may raise anything
        raise DataError(f"{path}: not a pickle of arrays ({error}).") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: a pickle of {type(value).__name__}, not of a dict.")
    return value


# --- arrays that are read a piece at a time ---------------------------------------------------------------------------


def _row_bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Bytes of one item of an array.

    Raises:
        ValueError: for arrays that no dataset has.
    """
    row_bytes = math.prod(shape[1:]) * dtype.itemsize
    if min(shape, default=0) < 1 or not 0 < row_bytes <= spans.MAX_MEMBER:
        raise ValueError(f"an array {shape}")
    return row_bytes


def _rows(file: IO[bytes] | gzip.GzipFile, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[np.ndarray]:
    """What is left of ``file``, in pieces along the first axis.

    Raises:
        EOFError, ValueError: if it is less or more.
    """
    row_bytes = _row_bytes(shape, dtype)
    at_once = max(1, PART_BYTES // row_bytes)
    for first in range(0, shape[0], at_once):
        n = min(at_once, shape[0] - first)
        data = file.read(n * row_bytes)
        if len(data) != n * row_bytes:
            raise EOFError("cut off")
        yield np.frombuffer(data, dtype=dtype).reshape(n, *shape[1:])
    if file.read(1):  # only at the end is the check sum compared
        raise ValueError("more bytes than its head says")


# --- npz: ImageNet, multi-dSprites ------------------------------------------------------------------------------------


class NpyInZip:
    """One array of an ``.npz``, read front to back."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        with self._open():
            pass

    def _open(self) -> IO[bytes]:
        with reading(self.path, self.key):
            archive = zipfile.ZipFile(self.path)
            file = archive.open(f"{self.key}.npy")  # keeps the archive open
            header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            self.shape, fortran, self.dtype = header[np.lib.format.read_magic(file)](file)
            if fortran or self.dtype.hasobject:
                raise ValueError(f"{self.dtype}, column-major {fortran}")
            _row_bytes(self.shape, self.dtype)
        return file

    def rows(self) -> Iterator[np.ndarray]:
        """The array in pieces along its first axis."""
        with self._open() as file, reading(self.path, self.key):
            yield from _rows(file, self.shape, self.dtype)


# --- MATLAB's level 5: SVHN, OMNIGLOT ---------------------------------------------------------------------------------

UINT8, MATRIX, COMPRESSED = 2, 14, 15  # types of an element


def load_mat(path: Path, *names: str) -> list[np.ndarray]:
    """Arrays of a .mat file that fit into memory.

    Raises:
        DataError: if it is damaged, or lacks one of them.
    """
    from scipy.io import loadmat

    try:
        values = loadmat(path, variable_names=names)
    except Exception as error:  # a damaged file may raise anything
        raise DataError(f"{path}: damaged or cut off ({error}).") from error
    if missing := [name for name in names if name not in values]:
        raise DataError(f"{path}: has no array {', '.join(missing)}; another file?")
    return [values[name] for name in names]


class MatArray:
    """One uint8 array of a level-5 .mat file, which may be larger than memory; SciPy reads such files only whole.

    Its last axis is the slowest in the file: items come one after the other, each in column-major order.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        with open(path, "rb") as file:
            self.shape = self._find(file)[1]

    def items(self) -> Iterator[np.ndarray]:
        """Pieces (n, *reversed shape without the last axis): items first, axes in reverse order."""
        *axes, total = self.shape
        item_bytes = int(np.prod(axes))
        at_once = max(1, PART_BYTES // item_bytes)
        with open(self.path, "rb") as file, reading(self.path, self.name):
            data, _ = self._find(file)
            for first in range(0, total, at_once):
                n = min(at_once, total - first)
                yield np.frombuffer(data.take(n * item_bytes), dtype=np.uint8).reshape(n, *reversed(axes))
            data.finish()

    def _find(self, file: BinaryIO) -> "tuple[_Bytes, tuple[int, ...]]":
        """The bytes of the array, at their beginning, and its shape."""
        with reading(self.path, self.name):
            if file.read(128)[124:128] != b"\x00\x01IM":
                raise ValueError("no little-endian MATLAB 5 file")
            while head := file.read(8):
                kind, size = struct.unpack("<II", head)
                end = file.tell() + size
                data = _Bytes(file, size, kind == COMPRESSED)
                if kind == COMPRESSED:
                    kind, _ = struct.unpack("<II", data.take(8))
                if kind == MATRIX and (shape := self._shape(data)) is not None:
                    return data, shape
                file.seek(end)
        raise DataError(f"{self.path}: has no uint8 array {self.name!r}.")

    def _shape(self, data: "_Bytes") -> tuple[int, ...] | None:
        """The array's shape if it is the one sought; ``data`` then stands at its first value."""
        _, _flags = data.element()
        _, dimensions = data.element()
        _, name = data.element()
        if name.decode("latin1") != self.name:
            return None
        kind, size = struct.unpack("<II", data.take(8))
        shape = tuple(np.frombuffer(dimensions, dtype="<i4").tolist())
        if kind != UINT8 or size != np.prod(shape):
            raise ValueError(f"values of type {kind}, {size:,} bytes for {shape}")
        return shape


class _Bytes:
    """Part of a file, unpacked on the way if it is packed."""

    def __init__(self, file: BinaryIO, size: int, packed: bool) -> None:
        self._file, self._left = file, size
        self._unpack = zlib.decompressobj() if packed else None

    def take(self, n: int) -> bytes:
        """The next ``n`` bytes."""
        out = bytearray()
        while len(out) < n:
            out += self._some(n - len(out))
        return bytes(out)

    def _some(self, n: int) -> bytes:
        """Up to ``n`` more bytes; perhaps none yet, where they are packed."""
        tail = self._unpack.unconsumed_tail if self._unpack else b""
        packed = tail or self._file.read(min(self._left, 2**20 if self._unpack else n))
        self._left -= 0 if tail else len(packed)
        if not packed:
            raise EOFError("cut off")
        return self._unpack.decompress(packed, n) if self._unpack else packed

    def finish(self) -> None:
        """Go over what fills up the last eight bytes: at the end of packed bytes, their check sum is compared."""
        room = 8
        while self._unpack and not self._unpack.eof:
            room -= len(self._some(room))
            if not room:
                raise ValueError("more bytes than its head says")

    def element(self) -> tuple[int, bytes]:
        """Type and bytes of a small element; those of up to four bytes stand inside its head."""
        head = self.take(8)
        kind, size = struct.unpack("<II", head)
        if kind >> 16:
            return kind & 0xFFFF, head[4 : 4 + (kind >> 16)]
        if size > 2**16:
            raise ValueError(f"a head of {size:,} bytes")
        return kind, self.take(-(-size // 8) * 8)[:size]


# --- the binary matrices of small NORB --------------------------------------------------------------------------------

NORB_TYPES: dict[int, np.dtype] = {0x1E3D4C55: np.dtype("u1"), 0x1E3D4C54: np.dtype("<i4")}


class NorbArray:
    """A gzipped file of small NORB's binary matrix format, read front to back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path), unpacked(path) as file:
            self._head(file)

    def _head(self, file: IO[bytes] | gzip.GzipFile) -> None:
        with reading(self.path):
            magic, n_axes = struct.unpack("<II", file.read(8))
            if magic not in NORB_TYPES or not 1 <= n_axes <= 8:
                raise ValueError(f"no matrix of small NORB, magic {magic:#x}")
            # At least three dimensions are always written.
            sizes = np.frombuffer(file.read(4 * max(3, n_axes)), dtype="<i4")
            self.dtype, self.shape = NORB_TYPES[magic], tuple(sizes[:n_axes].tolist())
            _row_bytes(self.shape, self.dtype)

    def rows(self) -> Iterator[np.ndarray]:
        """The array in pieces along its first axis."""
        with unpacked(self.path) as file, reading(self.path):
            self._head(file)
            yield from _rows(file, self.shape, self.dtype)
