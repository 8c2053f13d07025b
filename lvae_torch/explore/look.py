"""What a view gives: pictures and what the page must know of them, numbers, and the Python lines that make them."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from lvae_torch.files import finite
from lvae_torch.reporting.grids import PADDING, SMALL, image_grid
from lvae_torch.reporting.plane import BOTTOM, LEFT, RIGHT, SIDE, TOP, Bounds, Clouds, plane_picture


@dataclass(frozen=True)
class Shown:
    """One picture of a view."""

    name: str
    pixels: np.ndarray
    """uint8 (height, width, 3)."""
    alt: str
    """What it shows, for those who do not see it."""
    geometry: Mapping[str, object] = field(default_factory=dict)
    """Where its tiles are, or what its axes are."""
    labels: Sequence[str] = ()
    """Of the tiles, in their order."""

    def png(self, about: Mapping[str, str]) -> bytes:
        """The picture as a PNG file, with texts in its metadata."""
        from PIL import Image, PngImagePlugin

        info = PngImagePlugin.PngInfo()
        for key, text in about.items():
            info.add_itxt(key, text)
        buffer = io.BytesIO()
        Image.fromarray(self.pixels).save(buffer, format="png", pnginfo=info, compress_level=1)
        return buffer.getvalue()


@dataclass(frozen=True)
class Look:
    """The answer of a view."""

    pictures: Sequence[Shown]
    lines: str
    """A Python program that makes the pictures, each as NAME.png."""
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def packed(self, identity: Mapping[str, Any], view: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """As JSON for the page; each picture's metadata hold the run, what was asked for, and the Python lines."""
        settings = json.dumps({**identity, "view": view, **asked})
        about = {"Software": "lvae_torch", "Settings": settings, "Python": self.lines}
        pictures = [
            {
                "name": shown.name,
                "png": base64.b64encode(shown.png({"Title": shown.alt, **about})).decode(),
                "width": shown.pixels.shape[1],
                "height": shown.pixels.shape[0],
                "alt": shown.alt,
                "labels": list(shown.labels),
                **shown.geometry,
            }
            for shown in self.pictures
        ]
        numbers = finite(self.numbers)
        return {"pictures": pictures, "numbers": numbers, "lines": self.lines, "class": identity.get("class")}


def sheet(name: str, x: Tensor, columns: int, alt: str, labels: Sequence[str] = ()) -> Shown:
    """Images x, (n, C, H, W), in a grid."""
    picture = image_grid(x, columns)
    columns = min(columns, len(x))
    factor = -(-SMALL // max(x.shape[2:]))
    tile_height = x.shape[2] * factor
    tile_width = (picture.shape[1] - PADDING) // columns - PADDING
    geometry = {"grid": {"columns": columns, "n": len(x), "tile": [tile_width, tile_height], "padding": PADDING}}
    return Shown(name, picture, alt, geometry, labels)


def plane(name: str, clouds: Clouds, bounds: Bounds, alt: str, joined: Sequence[str] = ()) -> Shown:
    """Clouds of points."""
    field_ = {"bounds": list(bounds), "box": [LEFT, TOP, SIDE - RIGHT, SIDE - BOTTOM]}
    return Shown(name, plane_picture(clouds, bounds, joined), alt, {"plane": field_})
