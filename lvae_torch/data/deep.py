"""Pixels of more than 8 bits as 8: of the pictures of dumps, and of one that a person drops.

Light to import, for dumps are made by many processes.
"""

from typing import Any

import numpy as np

Ends = tuple[float, float]
"""The values that become 0 and 255."""


class RangeError(ValueError):
    """Values of which nothing says which are black and which are white."""


def as_bytes(pixels: np.ndarray, ends: Ends | None) -> np.ndarray:
    """Numbers of any kind as uint8 of the same shape; 8 bits stay as they are.

    Args:
        ends: None for the type's own: the upper 8 bits of 16, floats from 0 to 1.
    Raises:
        RangeError: for values outside, and for numbers of a type that has no ends of its own.
    """
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype == np.uint8:
        return pixels
    if ends is None and pixels.dtype == np.uint16:
        return (pixels >> 8).astype(np.uint8)
    if ends is None and pixels.dtype.kind != "f":
        raise RangeError(f"pixels of {pixels.dtype}")
    low, high = ends or (0.0, 1.0)
    least, most = float(pixels.min()), float(pixels.max())
    if not low <= least <= most <= high:  # nor what is not finite
        raise RangeError(f"has values from {least:g} to {most:g}, outside of {low:g} to {high:g}")
    levels = np.empty(pixels.shape, np.uint8)
    for row in range(len(pixels)):  # one by one, for a large picture of doubles would take gigabytes
        levels[row] = ((pixels[row].astype(np.float64) - low) * (255 / (high - low))).round()
    return levels


def is_deep(picture: Any) -> bool:
    """Whether an open picture is grey of more than 8 bits."""
    return str(picture.mode).startswith(("I", "F"))


def has_deep_colours(picture: Any) -> bool:
    """Whether Pillow keeps only the upper 8 bits of an open colour picture's 16."""
    kinds = [tile[-1] if isinstance(tile[-1], str) else str(next(iter(tile[-1] or ("",)))) for tile in picture.tile]
    return picture.mode in ("RGB", "RGBA", "LA") and any(";16" in kind for kind in kinds)


def deep_grey(picture: Any) -> np.ndarray:
    """All bits of an open grey picture: (H, W), in the type that its file has."""
    pixels = np.asarray(picture)
    if picture.mode == "I" and picture.format in ("PPM", "PNG"):  # 16 bits in a wider type
        pixels = pixels.astype(np.uint16)
    if picture.format == "TIFF" and picture.tag_v2.get(262) == 0 and pixels.dtype.kind == "u":  # white is zero
        pixels = np.iinfo(pixels.dtype).max - pixels
    return pixels.astype(pixels.dtype.newbyteorder("="))


def put_transparency(shown: Any, picture: Any, levels: np.ndarray) -> None:
    """Give ``shown`` the transparent level of the open grey PNG ``picture``, if it names one, by all its bits."""
    from PIL import Image

    if isinstance(clear := picture.info.get("transparency"), int):
        shown.putalpha(Image.fromarray(np.where(levels == clear, np.uint8(0), np.uint8(255))))
