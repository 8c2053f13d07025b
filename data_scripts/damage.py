"""Damage that Pillow does not tell of: libjpeg warns of it only, and check sums of PNG and TIFF are passed over."""

import struct
import zlib
from typing import Any

import numpy as np

from data_scripts.heif_items import zeros_in
from data_scripts.spans import BadFileError

HOLE = bytes(32)  # zeros in a row that no coded picture has
SCAN, TABLES = 0xDA, 0xC4  # markers of a JPEG
COMPRESSION, AS_JPEG, DEFLATED = 259, 7, (8, 32946)  # a tag of a TIFF, and some of its values
PLACES, LENGTHS, JPEG_TABLES = (273, 324), (279, 325), 347  # of strips or tiles
PIECE = 2**16  # packed bytes, of which no more than some megabytes come


def damage_in(data: bytes, picture: Any) -> str:
    """What the bytes of a picture that is open, but not read yet, say is wrong with it; "" if nothing."""
    if picture.format in ("JPEG", "MPO"):
        return _hole_in_jpeg(data)
    if picture.format == "TIFF":
        return _wrong_strip(data, picture.tag_v2)
    if picture.format in ("HEIF", "AVIF"):
        return zeros_in(data)
    return _wrong_chunk(data) if picture.format == "PNG" else ""


def strict_jpeg(data: bytes, picture: Any) -> np.ndarray | None:
    """Pixels of a JPEG, (H, W) or (H, W, 3), the same as Pillow's; None where this is not installed or not able.

    Args:
        picture: the same as Pillow opened it, perhaps at a fraction of its size.
    Raises:
        BadFileError: where libjpeg warns of damage, which Pillow does not tell.
    """
    try:
        import simplejpeg
    except ImportError:
        return None
    if picture.mode not in ("L", "RGB"):
        return None
    is_grey, (width, height) = picture.mode == "L", picture.size
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(
            data, "GRAY" if is_grey else "RGB", min_height=height, min_width=width, strict=True
        )
    except ValueError as error:
        raise BadFileError(f"damaged ({error})") from error
    return pixels[..., 0] if is_grey else pixels


def _hole_in_jpeg(data: bytes) -> str:
    """A run of zeros in the coded picture, which libjpeg may take for a smooth part of it."""
    hole = data.find(HOLE, (scan := _scan(data)))
    if not scan or hole < 0 or _is_flat(data[:scan]):
        return ""
    end = data.find(b"\xff\xd9", scan)
    return f"zeros in the middle, from byte {hole:,}" if end < 0 or hole < end else ""


def _scan(data: bytes) -> int:
    """Where the coded picture begins; 0 if that is not found."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == SCAN:
            return at
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0


def _is_flat(head: bytes) -> bool:
    """Whether zeros may code "nothing more in this block" in every table, as those made for a plain picture have it."""
    at, firsts = 2, list[int]()
    while at + 4 <= len(head):
        length = int.from_bytes(head[at + 2 : at + 4], "big")
        if head[at + 1] == TABLES:
            table = at + 4
            while table + 17 < at + 2 + length:
                n_codes = sum(head[table + 1 : table + 17])
                if head[table] >> 4:  # of the AC tables, what the first code says
                    firsts.append(head[table + 17])
                table += 17 + n_codes
        at += 2 + length
    return not any(firsts)


def _wrong_chunk(data: bytes) -> str:
    """The first chunk whose check sum is wrong; Pillow compares none of those with pixels."""
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, end = data[at + 4 : at + 8], at + 8 + length
        if end + 4 > len(data):
            return "cut off"
        if kind in (b"IDAT", b"fdAT") and zlib.crc32(data[at + 4 : end]) != struct.unpack(">I", data[end : end + 4])[0]:
            return f"wrong check sum of the pixels at byte {at:,}"
        if kind == b"IEND":
            return ""
        at = end + 4
    return "cut off: its end is missing"


def _wrong_strip(data: bytes, tags: Any) -> str:
    """The first damaged strip or tile of a TIFF packed as PNG or JPEG are: libtiff stops where it has enough pixels."""
    if (packed := tags.get(COMPRESSION)) not in (*DEFLATED, AS_JPEG):
        return ""
    places, lengths = (next((tags[tag] for tag in either if tag in tags), ()) for either in (PLACES, LENGTHS))
    head = tags.get(JPEG_TABLES, b"\xff\xd8\xff\xd9")[:-2]  # goes on where a strip's own begins
    for place, length in zip(places, lengths, strict=False):
        strip = data[place : place + length]
        if problem := _hole_in_jpeg(head + strip[2:]) if packed == AS_JPEG else _wrong_stream(strip):
            return f"{problem} of the strip at byte {place:,}"
    return ""


def _wrong_stream(packed: bytes) -> str:
    unpack = zlib.decompressobj()
    try:
        for at in range(0, len(packed), PIECE):
            unpack.decompress(packed[at : at + PIECE])
    except zlib.error:
        return "wrong check sum"
    return ""
