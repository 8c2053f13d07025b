"""Points of the plane as a picture, drawn quickly, and the same for the same points: for pages that follow a slider."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from lvae_torch.reporting.ticks import ticks

SIDE, LEFT, RIGHT, TOP, BOTTOM = 520, 44, 8, 30, 26  # pixels of the picture, and of the margins around its field
COLOURS = ((154, 160, 168), (31, 99, 184), (214, 88, 18), (16, 132, 92))
INK, LINES = (70, 70, 70), (228, 228, 228)
FEW = 24  # clouds of so few points have large ones
Bounds = tuple[float, float, float, float]
"""(left, bottom, right, top) of what is shown."""
Clouds = Mapping[str, Tensor | np.ndarray]
"""Points by name, each (n, 2) or (n, 2, 1, 1)."""


def bounds_of(points: np.ndarray) -> Bounds:
    """What shows (almost) all of the points, (n, 2), with some room around, to one decimal."""
    low, high = np.quantile(points, 0.001, axis=0), np.quantile(points, 0.999, axis=0)
    room = 0.15 * np.maximum(high - low, 0.5)
    (left, bottom), (right, top) = np.floor((low - room) * 10) / 10, np.ceil((high + room) * 10) / 10
    return float(left), float(bottom), float(right), float(top)


def plane_picture(clouds: Clouds, bounds: Bounds, joined: Sequence[str] = ()) -> np.ndarray:
    """Clouds of points, later ones above earlier ones: uint8 (520, 520, 3).

    Args:
        joined: names of the clouds whose points are joined by lines, in their order.
    """
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(picture)
    _draw_axes(draw, bounds)
    x = LEFT
    for k, (name, points) in enumerate(clouds.items()):
        places = np.asarray(points.detach().cpu() if isinstance(points, Tensor) else points, np.float64).reshape(-1, 2)
        colour, radius = COLOURS[k % len(COLOURS)], 5.0 if len(places) <= FEW else 1.5
        pixels = [to_pixels(float(a), float(b), bounds) for a, b in places if np.isfinite([a, b]).all()]
        if name in joined:
            draw.line(pixels, fill=colour, width=2)
        for a, b in pixels:
            if LEFT <= a <= SIDE - RIGHT and TOP <= b <= SIDE - BOTTOM:
                draw.ellipse((a - radius, b - radius, a + radius, b + radius), fill=colour)
        draw.ellipse((x, 8, x + 10, 18), fill=colour)
        draw.text((x + 15, 7), name, fill=INK)
        x += 30 + int(draw.textlength(name))
    return np.asarray(picture)


def to_pixels(x: float, y: float, bounds: Bounds) -> tuple[float, float]:
    """Column and row of a point in the picture."""
    left, bottom, right, top = bounds
    across, down = SIDE - LEFT - RIGHT, SIDE - TOP - BOTTOM
    return LEFT + (x - left) / (right - left) * across, TOP + (top - y) / (top - bottom) * down


def _draw_axes(draw: "ImageDraw.ImageDraw", bounds: Bounds) -> None:  # type: ignore[name-defined]  # noqa: F821
    left, bottom, right, top = bounds
    for tick in ticks(left, right, about=6):
        column, _ = to_pixels(tick, bottom, bounds)
        draw.line((column, TOP, column, SIDE - BOTTOM), fill=LINES)
        draw.text((column, SIDE - BOTTOM + 6), f"{tick:g}", fill=INK, anchor="mt")
    for tick in ticks(bottom, top, about=6):
        _, row = to_pixels(left, tick, bounds)
        draw.line((LEFT, row, SIDE - RIGHT, row), fill=LINES)
        draw.text((LEFT - 6, row), f"{tick:g}", fill=INK, anchor="rm")
    draw.rectangle((LEFT, TOP, SIDE - RIGHT, SIDE - BOTTOM), outline=INK)
