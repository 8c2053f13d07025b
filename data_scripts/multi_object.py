"""Images of a few sprites on a black canvas, as addtt/multi-object-datasets makes them.

The order of random calls is the published one, so that the same seed gives the same images.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np

CANVAS = 64
PATCH = 18
MAX_ATTEMPTS = 100  # placements of one image before it is begun again, where overlap is forbidden

COLOURS = np.array(
    [[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], dtype=np.uint8
)  # white, red, green, blue, yellow, magenta, cyan
SCALES = np.linspace(0.5, 1.0, 6)
N_ANGLES = 40
SHAPES = ("square", "triangle", "ellipse")


def sprite_masks() -> np.ndarray:
    """uint8 0/1 masks of all scales, angles and shapes: (6, 40, 3, 18, 18)."""
    angles = 2 * np.pi * np.arange(N_ANGLES) / N_ANGLES
    return np.stack(
        [np.stack([np.stack([_polygon(4, a, s), _polygon(3, a, s), _ellipse(a, s)]) for a in angles]) for s in SCALES]
    ).astype(np.uint8)


def coloured_sprites() -> np.ndarray:
    """All 5,040 sprites, uint8 0/1, (5040, 18, 18, 3); nested by scale, colour, angle, shape (innermost)."""
    masks = sprite_masks()[:, None, ..., None]  # (6, 1, 40, 3, 18, 18, 1)
    sprites = masks * COLOURS[:, None, None, None, None]  # (6, 7, 40, 3, 18, 18, 3)
    return sprites.reshape(-1, PATCH, PATCH, 3)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[0:PATCH, 0:PATCH]
    return rows.astype(float), columns.astype(float)


def _polygon(corners: int, angle: float, scale: float) -> np.ndarray:
    """Pixels inside a regular polygon on a circle of radius scale * 9 around the middle of the patch."""
    rows, columns = _grid()
    turns = angle + 2 * np.pi * np.arange(corners) / corners
    r, c = (1 + scale * np.cos(turns)) * PATCH / 2, (1 + scale * np.sin(turns)) * PATCH / 2
    inside = np.ones((PATCH, PATCH), dtype=bool)
    for k in range(corners):
        nxt = (k + 1) % corners
        cross = (r[nxt] - r[k]) * (columns - c[k]) - (c[nxt] - c[k]) * (rows - r[k])
        inside &= cross >= -1e-9  # points on an edge count
    return inside


def _ellipse(angle: float, scale: float) -> np.ndarray:
    """Pixels strictly inside an ellipse with half axes scale * 9 and scale * 6."""
    rows, columns = _grid()
    r, c = rows - PATCH / 2, columns - PATCH / 2
    t = angle % np.pi
    along = (r * np.cos(t) + c * np.sin(t)) / (scale * PATCH / 2)
    across = (r * np.sin(t) - c * np.cos(t)) / (scale * PATCH / 3)
    return along**2 + across**2 < 1


@dataclass(frozen=True)
class Scene:
    """Which sprites an image shows, and where their patches begin."""

    sprites: np.ndarray  # (k,)
    rows: np.ndarray  # (k,)
    columns: np.ndarray  # (k,)


def draw_scenes(
    n: int,
    n_sprites: int,
    counts: Mapping[int, float],
    overlap: bool,
    rng: np.random.RandomState,
    canvas: int = CANVAS,
) -> list[Scene]:
    """``n`` scenes in their final order.

    Args:
        counts: number of objects -> its share of the images; most objects are drawn first, then all are shuffled.
    """
    scenes: list[Scene] = []
    for k in sorted(counts, reverse=True):
        wanted = min(ceil(n * counts[k] - 1e-9), n - len(scenes))
        scenes += [_scene(k, n_sprites, overlap, rng, canvas) for _ in range(wanted)]
    return [scenes[i] for i in rng.permutation(len(scenes))]


def _scene(k: int, n_sprites: int, overlap: bool, rng: np.random.RandomState, canvas: int) -> Scene:
    while True:
        sprites = rng.choice(n_sprites, size=k)
        placed = _place(k, overlap, rng, canvas)
        if placed is not None:
            rows, columns = placed
            return Scene(sprites, rows, columns)


def _place(k: int, overlap: bool, rng: np.random.RandomState, canvas: int) -> tuple[np.ndarray, np.ndarray] | None:
    rows, columns = np.empty(k, dtype=np.int64), np.empty(k, dtype=np.int64)
    placed = attempts = 0
    while placed < k:
        if attempts > MAX_ATTEMPTS:
            return None
        row, column = rng.randint(canvas - PATCH + 1), rng.randint(canvas - PATCH + 1)
        attempts += 1
        free = (abs(rows[:placed] - row) >= PATCH) | (abs(columns[:placed] - column) >= PATCH)
        if overlap or free.all():
            rows[placed], columns[placed] = row, column
            placed += 1
    return rows, columns


def render(scenes: list[Scene], sprites: np.ndarray, canvas: int = CANVAS) -> np.ndarray:
    """Sprites added up and clipped: uint8 0/1, (n, canvas, canvas, C)."""
    images = np.zeros((len(scenes), canvas, canvas, sprites.shape[-1]), dtype=np.uint8)
    for image, scene in zip(images, scenes, strict=True):
        for sprite, row, column in zip(scene.sprites, scene.rows, scene.columns, strict=True):
            image[row : row + PATCH, column : column + PATCH] |= sprites[sprite]
    return images


def rendered_in_parts(
    scenes: list[Scene], sprites: np.ndarray, canvas: int = CANVAS, part: int = 5000
) -> Iterator[np.ndarray]:
    """``render``, a bounded number of images at a time."""
    for first in range(0, len(scenes), part):
        yield render(scenes[first : first + part], sprites, canvas)
