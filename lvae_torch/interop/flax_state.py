"""Train states as flax writes them (``flax.serialization.to_bytes``), read without JAX: one msgpack map of arrays.

An array is an extension of type 1 or 3, whose payload is msgpack again: [shape, dtype, bytes in C order]. The file is
somebody else's: every length is held against what is left of the file before anything is read or made, and arrays are
found first and read one at a time later.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgpack
import numpy as np

from lvae_torch.errors import DataError

ARRAY, SCALAR = 1, 3  # extension types; 2 is a complex number, which no such state has
DTYPES = {"float32": np.dtype("<f4"), "int32": np.dtype("<i4")}
PLAIN = "plain"  # stands for the dtype of a number that is no array; it is kept in place of a shape
MOST_STEPS = 2**31
DEEPEST, MOST_ARRAYS, LONGEST_KEY, MOST_DIMS, HEAD = 24, 100_000, 256, 8, 256
CHUNKED = "__msgpack_chunked_array__"  # marks a map that stands for an array of more than 2^30 bytes


@dataclass(frozen=True)
class StoredArray:
    """Where an array lies in the file."""

    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[tuple[int, int], ...]
    """(offset, number of bytes), one after another in the array."""


class FlaxState:
    """The arrays of a file, by path: ``params/top_down/output_conv/conv/kernel``."""

    def __init__(self, path: Path) -> None:
        """Raises DataError if the file is no whole state of arrays of numbers."""
        self.path = path
        with open(path, "rb") as file:
            self.arrays = _Index(file, path).arrays

    def below(self, prefix: str) -> dict[str, StoredArray]:
        """The arrays under ``prefix``, by what follows it."""
        return {
            name.removeprefix(f"{prefix}/"): array
            for name, array in self.arrays.items()
            if name.startswith(f"{prefix}/")
        }

    def read(self, array: StoredArray) -> np.ndarray:
        """Its numbers, in an array of their own."""
        if array.dtype not in DTYPES:
            raise DataError(f"{self.path}: refused as a state of flax: a plain number stands where an array belongs.")
        values = np.empty(array.shape, DTYPES[array.dtype])
        buffer, filled = values.reshape(-1).view(np.uint8).data, 0
        with open(self.path, "rb", buffering=0) as file:
            for offset, size in array.pieces:
                file.seek(offset)
                if file.readinto(buffer[filled : filled + size]) != size:
                    raise DataError(f"{self.path}: ends within an array; it is shorter than when it was opened.")
                filled += size
        return values

    def number(self, name: str) -> float | None:
        """A single number; None if the state has none of that name.

        Raises:
            DataError: if it is no single number.
        """
        if (array := self.arrays.get(name)) is None:
            return None
        if array.dtype == PLAIN:
            return float(array.shape[0])
        if math.prod(array.shape) != 1:
            raise DataError(f"{self.path}: {name} has shape {array.shape}; it needs a single number.")
        return float(self.read(array).item())

    def count(self, name: str) -> int:
        """A number of steps; 0 if the state has none of that name.

        Raises:
            DataError: if it cannot be one.
        """
        number = self.number(name) or 0.0
        if not 0 <= number <= MOST_STEPS or number != int(number):
            raise DataError(f"{self.path}: refused as a state of flax: {name} is {number}, no number of steps.")
        return int(number)


def looks_like_state(head: bytes) -> bool:
    """Whether a file that begins so may be one: a map whose first key is text."""
    if len(head) < 3 or not (0x81 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF)):
        return False
    key = head[{0xDE: 3, 0xDF: 5}.get(head[0], 1) :]
    return bool(key) and _is_text(key[0])


class _Index:
    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._size = path.stat().st_size
        self._n_entries = 0
        self.arrays: dict[str, StoredArray] = {}
        try:
            end = self._walk(0, "", 0)
        except (msgpack.UnpackException, ValueError, TypeError, OverflowError) as error:
            if isinstance(error, DataError):
                raise
            raise self._refused(f"it is damaged or no msgpack ({type(error).__name__})") from error
        if end != self._size:
            raise self._refused(f"{self._size - end:,} bytes follow its end")

    def _refused(self, why: str) -> DataError:
        return DataError(f"{self._path}: refused as a state of flax: {why}.")

    def _at(self, position: int) -> "msgpack.Unpacker":
        self._file.seek(position)
        return msgpack.Unpacker(self._file, read_size=HEAD, max_buffer_size=4 * LONGEST_KEY, max_array_len=MOST_DIMS)

    def _bytes(self, position: int, n: int) -> bytes:
        self._file.seek(position)
        found = self._file.read(n)
        if len(found) < n:
            raise self._refused("it ends too early; it was cut short")
        return found

    def _walk(self, position: int, path: str, depth: int) -> int:
        """Note every array from ``position`` on, and return where the object there ends."""
        kind = self._bytes(position, 1)[0]
        if depth == 0 and not _is_map(kind):
            raise self._refused("it is no map of names")
        if _is_map(kind):
            return self._map(position, path, depth)
        if kind in (*range(0xC7, 0xCA), *range(0xD4, 0xD9)):
            return self._array(position, path)
        if kind <= 0x7F or kind >= 0xE0 or kind in (0xC0, 0xC2, 0xC3) or 0xCA <= kind <= 0xD3:
            return self._number(position, path)
        raise self._refused(f"{path} is neither an array, a number nor a map")

    def _map(self, position: int, path: str, depth: int) -> int:
        if depth == DEEPEST:
            raise self._refused(f"its maps are nested more than {DEEPEST} deep")
        unpacker = self._at(position)
        n = unpacker.read_map_header()
        position += unpacker.tell()
        if 2 * n > self._size - position:
            raise self._refused(f"{path or 'it'} promises {n:,} entries, more than the file is long")
        self._n_entries += n
        if self._n_entries > 4 * MOST_ARRAYS:
            raise self._refused(f"it has more than {4 * MOST_ARRAYS:,} entries")
        for _ in range(n):
            if not _is_text(self._bytes(position, 1)[0]):
                raise self._refused(f"{path or 'it'} has a key that is no text")
            unpacker = self._at(position)
            key = unpacker.unpack()
            if not 0 < len(key) <= LONGEST_KEY or "/" in key:
                raise self._refused(f"{path or 'it'} has a key of {len(key)} letters, or with a slash")
            position = self._walk(position + unpacker.tell(), f"{path}/{key}" if path else key, depth + 1)
        if n and self.arrays.pop(f"{path}/{CHUNKED}", None) is not None:
            self._join(path)
        return position

    def _array(self, position: int, path: str) -> int:
        kind, length, start = self._extension(position)
        if kind not in (ARRAY, SCALAR):
            raise self._refused(f"{path} is of extension type {kind}; arrays are of type {ARRAY}")
        if length > self._size - start:
            raise self._refused(f"{path} promises {length:,} bytes, more than the file has left")
        unpacker = msgpack.Unpacker(max_buffer_size=HEAD, max_array_len=MOST_DIMS)
        unpacker.feed(self._bytes(start, min(length, HEAD)))
        parts, shape, dtype = unpacker.read_array_header(), unpacker.unpack(), unpacker.unpack()
        if parts != 3 or not _is_shape(shape) or dtype not in DTYPES:
            raise self._refused(f"{path} is no array of {' or '.join(DTYPES)}")
        at = start + unpacker.tell()
        n_bytes, at = self._binary(at, path)
        if n_bytes != math.prod(shape) * DTYPES[dtype].itemsize or at + n_bytes != start + length:
            raise self._refused(f"{path} has {n_bytes:,} bytes for shape {tuple(shape)} of {dtype}")
        self._note(path, StoredArray(dtype, tuple(shape), ((at, n_bytes),)))
        return start + length

    def _note(self, path: str, array: StoredArray) -> None:
        if path in self.arrays:
            raise self._refused(f"{path} stands there twice")
        if len(self.arrays) == MOST_ARRAYS:
            raise self._refused(f"it has more than {MOST_ARRAYS:,} arrays")
        self.arrays[path] = array

    def _extension(self, position: int) -> tuple[int, int, int]:
        """(type, length, where the payload begins)."""
        kind = self._bytes(position, 1)[0]
        if kind >= 0xD4:
            return self._bytes(position + 1, 1)[0], 1 << (kind - 0xD4), position + 2
        width = 1 << (kind - 0xC7)
        head = self._bytes(position + 1, width + 1)
        return head[width], int.from_bytes(head[:width], "big"), position + 2 + width

    def _binary(self, position: int, path: str) -> tuple[int, int]:
        """(length, where the bytes begin)."""
        kind = self._bytes(position, 1)[0]
        if not 0xC4 <= kind <= 0xC6:
            raise self._refused(f"{path} holds no bytes")
        width = 1 << (kind - 0xC4)
        return int.from_bytes(self._bytes(position + 1, width), "big"), position + 1 + width

    def _number(self, position: int, path: str) -> int:
        """A plain number, of which only sizes of chunked arrays and their marks are kept."""
        unpacker = self._at(position)
        value = unpacker.unpack()
        if isinstance(value, int):
            self._note(path, StoredArray(PLAIN, (int(value),), ()))
        return position + int(unpacker.tell())

    def _join(self, path: str) -> None:
        """One array in place of the map that stands for it."""
        shape = [array.shape[0] for array in self._taken(f"{path}/shape", PLAIN)]
        chunks = list(self._taken(f"{path}/chunks", "float32"))
        sizes = [math.prod(chunk.shape) for chunk in chunks]
        if not _is_shape(shape) or sum(sizes) != math.prod(shape):
            raise self._refused(f"{path} has chunks of {sizes} numbers for shape {tuple(shape)}")
        self._note(path, StoredArray("float32", tuple(shape), tuple(p for chunk in chunks for p in chunk.pieces)))

    def _taken(self, prefix: str, dtype: str) -> Iterator[StoredArray]:
        for i in range(MOST_ARRAYS):
            array = self.arrays.pop(f"{prefix}/{i}", None)
            if array is None:
                return
            if array.dtype != dtype:
                raise self._refused(f"{prefix}/{i} is of {array.dtype}; it needs {dtype}")
            yield array


def _is_map(kind: int) -> bool:
    return 0x80 <= kind <= 0x8F or kind in (0xDE, 0xDF)


def _is_text(kind: int) -> bool:
    return 0xA0 <= kind <= 0xBF or 0xD9 <= kind <= 0xDB


def _is_shape(shape: object) -> bool:
    return (
        isinstance(shape, list) and len(shape) <= MOST_DIMS and all(type(n) is int and 0 <= n <= 2**31 for n in shape)
    )
