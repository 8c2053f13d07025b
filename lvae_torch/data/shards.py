"""The files of a dump: arrays as plain ``.npy``; or, for images too large to keep raw, PNG bytes behind an index.

An encoded shard of n images is n + 1 offsets from the file's beginning, int64 little-endian, and then the PNGs.
"""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
PNG_LEVEL = 6  # of zlib's 9; more takes much longer and saves little
OFFSET = np.dtype("<i8")

assert set(SUFFIX) == set(get_args(Encoding))


class Rows(Protocol):
    """Images (H, W, C) that can be read many at a time."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True)
class EncodedRows:
    """The pictures of one encoded shard, decoded as they are asked for, several at a time in threads."""

    path: Path
    file: np.ndarray
    """All bytes, mapped."""
    offsets: np.ndarray
    shape: tuple[int, ...]  # (n, H, W, C)
    dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        # Decoding happens outside the interpreter's lock, so threads are as good as processes, and copy nothing.
        for k, picture in enumerate(_decoders().map(self._decode, rows.tolist())):
            out[k] = picture
        return out

    def _decode(self, row: int) -> np.ndarray:
        return decode_png(self.file[self.offsets[row] : self.offsets[row + 1]].tobytes(), self.shape[1:], self.path)


@cache
def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_cores(), thread_name_prefix="decode")


def open_shard(path: Path, shape: tuple[int, int, int, int], dtype: str, encoding: Encoding) -> Rows:
    """A shard that holds ``shape``, (n, H, W, C); sizes are checked, bytes are not.

    Raises:
        DataError: if it is missing or something else.
    """
    try:
        rows = _encoded(path, shape) if encoding == "png" else _mapped(path, shape, dtype)
    except BROKEN_ARRAY as error:
        raise DataError(f"{path}: damaged or missing ({error}). Make the dump again.") from error
    return rows


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
    """What to write, piece after piece, for a shard of these PNGs."""
    offsets = np.cumsum([OFFSET.itemsize * (len(pictures) + 1), *map(len, pictures)], dtype=OFFSET)
    return [offsets.tobytes(), *pictures]


def encode_png(image: np.ndarray) -> bytes:
    """uint8 (H, W, C), C 1 or 3, as PNG: without loss, and without anything but the pixels."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(out, "png", compress_level=PNG_LEVEL)
    return out.getvalue()


def decode_png(data: bytes, shape: tuple[int, ...], path: Path) -> np.ndarray:
    """The picture as uint8 ``shape``, (H, W, C).

    Raises:
        DataError: naming ``path``, if it is damaged or of another shape.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("png",)) as picture:
            if picture.size != (shape[1], shape[0]):  # asked before it is unpacked
                raise ValueError(f"{picture.size[0]}x{picture.size[1]} pixels")
            image = np.asarray(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: holds a damaged picture ({error}). Make the dump again.") from error
    if image.dtype != np.uint8 or image.size != np.prod(shape):
        raise DataError(f"{path}: holds a picture {image.shape}, needs {shape}. Make the dump again.")
    return image.reshape(shape)
