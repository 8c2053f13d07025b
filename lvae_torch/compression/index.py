"""The list of the pictures in an archive: what they are called, how large they are, and how they are cut into tiles."""

import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lvae_torch.errors import DataError

MOST_PIXELS = 2**25  # of a picture: what bounds the memory of decompression
MOST_SIDE = 2**16
MOST_NAME = 1024  # characters, with folders
MODES = ("1", "L", "RGB")
ImageShape = tuple[int, int, int]


@dataclass(frozen=True)
class Entry:
    """A picture in the list of an archive."""

    name: str
    """Relative path, which ends with .png."""
    height: int
    width: int
    mode: str = "RGB"
    """Of the file: RGB, L (grey) or 1 (black and white), whatever the model's channels."""

    def tiling(self, tile: ImageShape) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.height // tile[1]), -(-self.width // tile[2])

    def n_tiles(self, tile: ImageShape) -> int:
        rows, columns = self.tiling(tile)
        return rows * columns


def packed_index(entries: Iterable[Entry]) -> bytes:
    """One JSON array a line, deflated."""
    lines = "".join(json.dumps([entry.name, entry.height, entry.width, entry.mode]) + "\n" for entry in entries)
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
        name, height, width, mode = json.loads(line)
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"the list of pictures: {error}.") from error
    sides_fit = type(height) is type(width) is int and fits(height, width)
    if not (isinstance(name, str) and sides_fit and mode in MODES and is_safe(name)):
        raise DataError(f"the list of pictures: {line[:100]!r} is no picture that can be written.")
    return Entry(name, height, width, mode)


def fits(height: int, width: int) -> bool:
    """Whether a picture of this size is neither empty nor too large."""
    return min(height, width) > 0 and max(height, width) <= MOST_SIDE and height * width <= MOST_PIXELS


def is_safe(name: str) -> bool:
    """Whether a relative path stays in its folder, and every system can write it."""
    parts = name.split("/")
    # What is printable has no half surrogates, so it can be encoded.
    ordinary = all(part.strip(". ") and part.isprintable() and len(part.encode()) <= 255 for part in parts)
    return name.endswith(".png") and len(name) <= MOST_NAME and ordinary and not set('\\:*?"<>|') & set(name)
