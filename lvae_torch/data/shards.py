"""The files of a dump: plain ``.npy`` arrays, or PNG files behind an index for images too large to keep raw.

An encoded shard of n images holds n + 1 offsets from the start of the file (int64, little-endian), then the PNGs.
"""

import errno
import io
import resource
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np

from lvae_torch.distributed.place import n_cores
from lvae_torch.errors import DataError
from lvae_torch.files import BROKEN_ARRAY

Encoding = Literal["raw", "png"]
SUFFIX: dict[Encoding, str] = {"raw": ".npy", "png": ".bin"}
DTYPES = ("uint8", "uint16", "float32")
PNG_LEVEL = 6  # zlib has 9 levels; higher ones take much longer and save little
OFFSET = np.dtype("<i8")

assert set(SUFFIX) == set(get_args(Encoding))


class Rows(Protocol):
    """Images (H, W, C) that are read many at a time by index."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True)
class EncodedRows:
    """The images of one encoded shard; threads decode several at a time when they are read."""

    path: Path
    file: np.ndarray
    """All bytes of the file, memory-mapped."""
    offsets: np.ndarray
    shape: tuple[int, ...]  # (n, H, W, C)
    dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        # Decoding releases the interpreter's lock, so threads are as fast as processes and copy nothing.
        for k, picture in enumerate(_decoders().map(self._decode, rows.tolist())):
            out[k] = picture
        return out

    def _decode(self, row: int) -> np.ndarray:
        return decode_png(self.file[self.offsets[row] : self.offsets[row + 1]].tobytes(), self.shape[1:], self.path)


@cache
def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_cores(), thread_name_prefix="decode")


def open_shard(path: Path, shape: tuple[int, int, int, int], dtype: str, encoding: Encoding) -> Rows:
    """Open a shard of images ``shape``, (n, H, W, C); sizes are checked, checksums are not.

    Raises:
        DataError: if the file is missing, damaged or of another shape, or too many are open.
    """
    _allow_many_files()
    try:
        rows = _encoded(path, shape) if encoding == "png" else _mapped(path, shape, dtype)
    except BROKEN_ARRAY as error:
        raise unreadable(f"{path}: damaged or missing", error) from error
    return rows


@cache
def _allow_many_files() -> None:
    """Raise the limit of open files as far as this user may: each file that is mapped counts as long as it is used."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS allows less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def unreadable(what: str, error: BaseException) -> DataError:
    """The error for a file of a dump that could not be read: ``what`` says which, and that it is damaged.

    Where there are merely too many files open, nothing is.
    """
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        place = what.partition(": ")[0]
        return DataError(f"{place}: too many files are open ({error.strerror}). Allow more, such as ulimit -n 65536.")
    return DataError(f"{what} ({error}). Make the dump again.")


def _mapped(path: Path, shape: tuple[int, ...], dtype: str) -> Rows:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"holds {array.dtype} {array.shape}, needs {dtype} {shape}")
    if path.stat().st_size != array.offset + array.nbytes:
        raise ValueError(f"{path.stat().st_size:,} bytes, more than its images have")
    return np.asarray(array)


def _encoded(path: Path, shape: tuple[int, ...]) -> Rows:
    file = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
    head = OFFSET.itemsize * (shape[0] + 1)
    if len(file) < head:
        raise ValueError(f"{len(file):,} bytes are too few for {shape[0]:,} images")
    offsets = file[:head].view(OFFSET)
    if offsets[0] != head or offsets[-1] != len(file) or (np.diff(offsets) <= 0).any():
        raise ValueError(f"{len(file):,} bytes do not fit its index")
    return EncodedRows(path, file, offsets, shape)


def encoded_shard(pictures: Sequence[bytes]) -> list[bytes]:
    """The pieces of a shard of these PNGs, to be written one after the other."""
    offsets = np.cumsum([OFFSET.itemsize * (len(pictures) + 1), *map(len, pictures)], dtype=OFFSET)
    return [offsets.tobytes(), *pictures]


def encode_png(image: np.ndarray) -> bytes:
    """Encode uint8 (H, W, C), with C 1 or 3, as PNG: lossless, and without metadata."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(out, "png", compress_level=PNG_LEVEL)
    return out.getvalue()


def decode_png(data: bytes, shape: tuple[int, ...], path: Path) -> np.ndarray:
    """Decode a PNG to uint8 of shape ``shape``, (H, W, C).

    Raises:
        DataError: naming ``path``, if the picture is damaged or of another shape.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("png",)) as picture:
            if picture.size != (shape[1], shape[0]):  # checked before the pixels are unpacked
                raise ValueError(f"{picture.size[0]}x{picture.size[1]} pixels")
            image = np.asarray(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: holds a damaged picture ({error}). Make the dump again.") from error
    if image.dtype != np.uint8 or image.size != np.prod(shape):
        raise DataError(f"{path}: holds a picture {image.shape}, needs {shape}. Make the dump again.")
    return image.reshape(shape)
