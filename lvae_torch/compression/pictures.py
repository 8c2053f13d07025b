"""Picture files as tiles of the model's size, and back.

A picture is cut row by row; where it does not fill its last tiles, its outer pixels are repeated, which costs next to
nothing. What comes back has the same pixels, as PNG; no metadata is kept, and pictures are turned as they are shown.
"""

import json
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from lvae_torch.errors import CfgError, DataError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
MOST_PIXELS = 2**26  # of a picture
MOST_NAME = 1024  # characters, with folders
MOST_FILE = 2**29  # bytes of a picture file
ImageShape = tuple[int, int, int]


@dataclass(frozen=True)
class Entry:
    """A picture in the list of an archive."""

    name: str
    """Relative path, which ends with .png."""
    height: int
    width: int

    def tiling(self, tile: ImageShape) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.height // tile[1]), -(-self.width // tile[2])

    def n_tiles(self, tile: ImageShape) -> int:
        rows, columns = self.tiling(tile)
        return rows * columns


def packed_index(entries: Iterable[Entry]) -> bytes:
    """One JSON array a line, deflated."""
    lines = "".join(json.dumps([entry.name, entry.height, entry.width]) + "\n" for entry in entries)
    return zlib.compress(lines.encode(), 9)


def read_index(packed: bytes) -> Iterator[Entry]:
    """The entries, one after the other: nothing is unpacked further than it is read.

    Raises:
        DataError: if it is damaged, or an entry is out of bounds or leads out of the folder.
    """
    inflate, rest, text = zlib.decompressobj(), packed, b""
    most_line = 8 * MOST_NAME
    while not inflate.eof:
        try:
            piece = inflate.decompress(rest, most_line)
        except zlib.error as error:
            raise DataError(f"the list of pictures: {error}.") from error
        rest = inflate.unconsumed_tail
        if not piece and not rest and not inflate.eof:
            raise DataError("the list of pictures ends early.")
        *lines, text = (text + piece).split(b"\n")
        yield from map(_entry, lines)
        if len(text) > most_line:
            raise DataError("the list of pictures has a line that is too long.")
    if text:
        raise DataError("the list of pictures ends inside a line.")


def _entry(line: bytes) -> Entry:
    try:
        name, height, width = json.loads(line)
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"the list of pictures: {error}.") from error
    sides_fit = type(height) is type(width) is int and min(height, width) > 0 and height * width <= MOST_PIXELS
    if not (isinstance(name, str) and sides_fit and is_safe(name)):
        raise DataError(f"the list of pictures: {line[:100]!r} is no picture that can be written.")
    return Entry(name, height, width)


def is_safe(name: str) -> bool:
    """Whether a relative path stays in its folder, and every system can write it."""
    parts = name.split("/")
    ordinary = all(part.strip(". ") and len(part.encode()) <= 255 and part.isprintable() for part in parts)
    return name.endswith(".png") and len(name) <= MOST_NAME and ordinary and not set('\\:*?"<>|') & set(name)


@dataclass(frozen=True)
class Levels:
    """How values of 8 bits and a model's levels translate."""

    n_levels: int

    def __post_init__(self) -> None:
        if self.n_levels > 256 or self.n_levels & (self.n_levels - 1):
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
            with _zip(self.path) as archive:
                links = [i.filename for i in archive.infolist() if stat.S_ISLNK(i.external_attr >> 16)]
                files = [i.filename for i in archive.infolist() if not i.is_dir() and i.filename not in links]
        members = sorted(name for name in files if PurePosixPath(name).suffix.lower() in SUFFIXES)
        if not members:
            raise DataError(f"{self.path}: no pictures there ({', '.join(sorted(SUFFIXES))}).")
        return members

    @cached_property
    def entries(self) -> Sequence[Entry]:
        """Every picture is opened once, so that what cannot be compressed is told before anything is written."""
        entries = [Entry(_png_name(name), *self._pixels(name).shape[:2]) for name in self.members]
        if unsafe := [entry.name for entry in entries if not is_safe(entry.name)]:
            raise DataError(f"{self.path}: the name {unsafe[0]!r} could not be written everywhere; change it.")
        if len({entry.name for entry in entries}) < len(entries):
            raise DataError(f"{self.path}: two pictures would come back under one name; rename one.")
        return entries

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
            self._cut = picture, cut(self._pixels(self.members[picture]), self.tile)
        return self._cut[1]

    def _pixels(self, member: str) -> np.ndarray:
        """Levels, (H, W, C)."""
        place = f"{self.path}: {member}"
        with self._open(member) as file:
            values = _decoded(file, self.tile[0], place)
        levels = Levels(self.n_levels).of(values)
        if levels is None:
            raise DataError(f"{place}: has values between the model's {self.n_levels} levels; reduce it to them first.")
        return levels

    def _open(self, member: str) -> BinaryIO:
        from io import BytesIO

        if self.path.is_dir():
            return open(self.path / member, "rb")
        with _zip(self.path) as archive:
            info = archive.getinfo(member)
            if info.file_size > MOST_FILE or info.flag_bits & 1:
                raise DataError(f"{self.path}: {member}: encrypted, or larger than {MOST_FILE:,} bytes.")
            try:
                return BytesIO(archive.read(info))
            except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
                raise DataError(f"{self.path}: {member}: {error}. Get the file again.") from error


def cut(pixels: np.ndarray, tile: ImageShape) -> np.ndarray:
    """(H, W, C) -> tiles row by row, (n, C, h, w); the outer pixels are repeated where there are none."""
    channels, height, width = tile
    rows, columns = -(-pixels.shape[0] // height), -(-pixels.shape[1] // width)
    missing = (0, rows * height - pixels.shape[0]), (0, columns * width - pixels.shape[1]), (0, 0)
    whole = np.pad(pixels, missing, mode="edge")
    return whole.reshape(rows, height, columns, width, channels).transpose(0, 2, 4, 1, 3).reshape(-1, *tile)


def joined(tiles: np.ndarray, entry: Entry, tile: ImageShape) -> np.ndarray:
    """The opposite of ``cut``, (H, W, C)."""
    channels, height, width = tile
    rows, columns = entry.tiling(tile)
    whole = tiles.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    return whole.reshape(rows * height, columns * width, channels)[: entry.height, : entry.width]


def _decoded(file: BinaryIO, channels: int, place: str) -> np.ndarray:
    """Values of a picture, uint8 (H, W, C)."""
    from PIL import Image, ImageOps

    if channels not in (1, 3):
        raise CfgError(f"pictures have 1 or 3 channels, but this model {channels}; compress a dump.")
    try:
        with Image.open(file) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise DataError(f"{place}: more than {MOST_PIXELS:,} pixels.")
            if getattr(opened, "n_frames", 1) > 1:
                raise DataError(f"{place}: has several frames; save each as a picture of its own.")
            image = ImageOps.exif_transpose(opened)
            return _values(image, channels, place)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{place}: no picture that can be read ({error}).") from error


def _values(image: "Image.Image", channels: int, place: str) -> np.ndarray:  # type: ignore[name-defined]  # noqa: F821
    grey = image.mode in ("1", "L")
    if image.has_transparency_data:
        if image.convert("RGBA").getextrema()[3] != (255, 255):
            raise DataError(f"{place}: is transparent in places, which would be lost; put it on a background first.")
        image = image.convert("RGB")
    if channels == 1 and grey:
        return np.asarray(image.convert("L"))[..., None]
    if channels == 3 and (grey or image.mode in ("P", "RGB")):
        return np.asarray(image.convert("RGB"))
    raise DataError(
        f"{place}: pixels of kind {image.mode}, but the model has {channels} channels of 8 bits. Convert it first."
    )


def _png_name(member: str) -> str:
    return member if member.endswith(".png") else f"{member}.png"


def _zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: neither a folder nor a zip of pictures ({error}).") from error
