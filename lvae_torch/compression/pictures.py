"""Picture files as tiles of the model's size, and back.

A picture is cut row by row; where it does not fill its last tiles, its outer pixels are repeated, which costs next to
nothing. What comes back has the same pixels, as PNG; no metadata is kept, and pictures are turned as they are shown.
Grey pictures can be coded by a model of colours, and colours that are all grey by a model of one channel.
"""

import stat
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from lvae_torch.compression.index import MODES, MOST_PIXELS, MOST_SIDE, Entry, ImageShape, fits, is_safe
from lvae_torch.errors import CfgError, DataError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
MOST_FILE = 2**29  # bytes of a picture file


def fit_pictures(n_levels: int) -> bool:
    """Whether values of 8 bits are cut into so many levels of one width: 2, 4, 8 .. 256."""
    return n_levels <= 256 and not n_levels & (n_levels - 1)


@dataclass(frozen=True)
class Levels:
    """How values of 8 bits and a model's levels translate."""

    n_levels: int

    def __post_init__(self) -> None:
        if not fit_pictures(self.n_levels):
            raise CfgError(f"pictures have 2, 4, 8 .. 256 levels, but this model {self.n_levels}; compress a dump.")

    @property
    def _value(self) -> np.ndarray:
        """Of each level: 0 and 255 of two, else the lower end of what [data] n_bits makes one."""
        if self.n_levels == 2:
            return np.array([0, 255], np.uint8)
        return (np.arange(self.n_levels) * (256 // self.n_levels)).astype(np.uint8)

    def of(self, values: np.ndarray) -> np.ndarray | None:
        """Levels of uint8 values; None if some are of no level."""
        levels = values >> (8 - self.n_levels.bit_length() + 1)
        return levels if np.array_equal(self._value[levels], values) else None

    def values(self, levels: np.ndarray) -> np.ndarray:
        """uint8."""
        result: np.ndarray = self._value[levels]
        return result


class PictureFiles:
    """The pictures of a folder or a zip, in the order of their names; a ``chain.LevelSource`` of their tiles."""

    def __init__(self, path: Path, tile: ImageShape, n_levels: int) -> None:
        self.path = path
        self.tile = tile
        self.n_levels = n_levels
        self._cut: tuple[int, np.ndarray] = (-1, np.empty(0))  # the tiles of one picture

    @cached_property
    def members(self) -> Sequence[str]:
        """Names of the files, sorted.

        Raises:
            DataError: if there is no such folder or zip, or nothing in it.
        """
        if self.path.is_dir():
            files = [f.relative_to(self.path).as_posix() for f in self.path.rglob("*") if f.is_file()]
        else:
            infos = [info for info in self._zip.infolist() if not info.is_dir()]
            files = [info.filename for info in infos if not stat.S_ISLNK(info.external_attr >> 16)]
        members = sorted(name for name in files if PurePosixPath(name).suffix.lower() in SUFFIXES)
        if not members:
            raise DataError(f"{self.path}: no pictures there ({', '.join(sorted(SUFFIXES))}).")
        return members

    @cached_property
    def entries(self) -> Sequence[Entry]:
        """Every picture is opened once, so that what cannot be compressed is told before anything is written."""
        entries = [self._entry(name) for name in self.members]
        if unsafe := [entry.name for entry in entries if not is_safe(entry.name)]:
            raise DataError(f"{self.path}: the name {unsafe[0]!r} could not be written everywhere; change it.")
        if len({entry.name for entry in entries}) < len(entries):
            raise DataError(f"{self.path}: two pictures would come back under one name; rename one.")
        return entries

    def _entry(self, member: str) -> Entry:
        levels, mode = self._pixels(member)
        return Entry(_png_name(member), levels.shape[0], levels.shape[1], mode)

    @cached_property
    def _ends(self) -> np.ndarray:
        """Number of the tile after the last of each picture."""
        return np.array(list(accumulate(entry.n_tiles(self.tile) for entry in self.entries)), dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def levels(self, first: int, n: int) -> np.ndarray:
        """Of tiles first .. first + n - 1, integers (n, C, H, W)."""
        tiles = []
        for i in range(first, first + n):
            picture = int(np.searchsorted(self._ends, i, side="right"))
            begin = int(self._ends[picture - 1]) if picture else 0
            tiles.append(self._tiles(picture)[i - begin])
        return np.stack(tiles)

    def _tiles(self, picture: int) -> np.ndarray:
        """(n, C, H, W)."""
        if self._cut[0] != picture:
            self._cut = picture, cut(self._pixels(self.members[picture])[0], self.tile)
        return self._cut[1]

    def _pixels(self, member: str) -> tuple[np.ndarray, str]:
        """Levels, (H, W, C), and the mode of the file."""
        place = f"{self.path}: {member}"
        with self._open(member) as file:
            values, mode = _decoded(file, self.tile[0], place)
        levels = Levels(self.n_levels).of(values)
        if levels is None:
            raise DataError(f"{place}: has values between the model's {self.n_levels} levels; reduce it to them first.")
        return levels, mode

    def _open(self, member: str) -> BinaryIO:
        from io import BytesIO

        if self.path.is_dir():
            return open(self.path / member, "rb")
        info = self._zip.getinfo(member)
        if info.file_size > MOST_FILE or info.flag_bits & 1:
            raise DataError(f"{self.path}: {member}: encrypted, or larger than {MOST_FILE:,} bytes.")
        try:
            return BytesIO(self._zip.read(info))
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise DataError(f"{self.path}: {member}: {error}. Get the file again.") from error

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        """Opened once, since its directory is read with it; closed when it is no longer referred to."""
        try:
            return zipfile.ZipFile(self.path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.path}: neither a folder nor a zip of pictures ({error}).") from error


def cut(pixels: np.ndarray, tile: ImageShape) -> np.ndarray:
    """(H, W, C) -> tiles row by row, (n, C, h, w); the outer pixels are repeated where there are none."""
    channels, height, width = tile
    rows, columns = -(-pixels.shape[0] // height), -(-pixels.shape[1] // width)
    missing = (0, rows * height - pixels.shape[0]), (0, columns * width - pixels.shape[1]), (0, 0)
    whole = np.pad(pixels, missing, mode="edge")
    return whole.reshape(rows, height, columns, width, channels).transpose(0, 2, 4, 1, 3).reshape(-1, *tile)


def joined(tiles: Iterable[np.ndarray], entry: Entry, tile: ImageShape) -> np.ndarray:
    """The opposite of ``cut``, uint8 (H, W, C); tiles are put in their place as they come.

    Raises:
        DataError: if there are too few.
    """
    channels, height, width = tile
    columns, n_tiles = entry.tiling(tile)[1], 0
    pixels = np.empty((entry.height, entry.width, channels), np.uint8)
    for n_tiles, values in enumerate(tiles, start=1):
        row, column = divmod(n_tiles - 1, columns)
        place = pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
        place[...] = values.transpose(1, 2, 0)[: place.shape[0], : place.shape[1]]
    if n_tiles < entry.n_tiles(tile):
        raise DataError("there are fewer tiles than the pictures have.")
    return pixels


def _decoded(file: BinaryIO, channels: int, place: str) -> tuple[np.ndarray, str]:
    """Values of a picture, uint8 (H, W, C), and its mode."""
    from PIL import Image, ImageOps

    if channels not in (1, 3):
        raise CfgError(f"pictures have 1 or 3 channels, but this model {channels}; compress a dump.")
    try:
        with Image.open(file) as opened:
            if not fits(opened.height, opened.width):
                raise DataError(f"{place}: has more than {MOST_PIXELS:,} pixels, or {MOST_SIDE:,} on a side. Cut it.")
            if getattr(opened, "n_frames", 1) > 1:
                raise DataError(f"{place}: has several frames; save each as a picture of its own.")
            image = ImageOps.exif_transpose(opened)
            return _values(image, channels, place)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{place}: no picture that can be read ({error}).") from error


def _values(image: "Image.Image", channels: int, place: str) -> tuple[np.ndarray, str]:  # type: ignore[name-defined]  # noqa: F821
    if image.has_transparency_data:
        if image.convert("RGBA").getextrema()[3] != (255, 255):
            raise DataError(f"{place}: is transparent in places, which would be lost; put it on a background first.")
        image = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    mode = "RGB" if image.mode == "P" else image.mode
    if mode not in MODES:
        raise DataError(f"{place}: pixels of kind {mode}, but the model has {channels} channels of 8 bits. Convert it.")
    values = np.asarray(image.convert("RGB" if mode == "RGB" else "L"))
    values = values if values.ndim == 3 else values[..., None]
    if values.shape[2] > channels:
        if (values != values[..., :1]).any():
            raise DataError(f"{place}: has colours, but the model has one channel. Convert it to grey first.")
        values = values[..., :1]
    return np.broadcast_to(values, (*values.shape[:2], channels)), mode


def as_mode(values: np.ndarray, mode: str) -> "Image.Image":  # type: ignore[name-defined]  # noqa: F821
    """A picture of this mode; values, uint8 (H, W, C), were made of such a one."""
    from PIL import Image

    if mode == "RGB":
        return Image.fromarray(np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3))))
    return Image.fromarray(np.ascontiguousarray(values[..., 0])).convert(mode)


def _png_name(member: str) -> str:
    return member if member.endswith(".png") else f"{member}.png"
