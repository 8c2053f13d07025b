"""Arranges images in grids."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lvae_torch.files import atomic_write
from lvae_torch.reporting.reporter import writing_to

PADDING = 2
SHOWN_AS_THEY_ARE = (1, 3)  # channels: grey and RGB
BETWEEN = 96  # grey between channels that lie side by side
SMALL = 56  # tiles below this are enlarged, so that single pixels can be seen


def image_grid(images: Tensor | np.ndarray, columns: int) -> np.ndarray:
    """Images (N, C, H, W) in [0, 1], row by row, as one picture: uint8 (height, width, 3); see ``in_colour``.

    Small images are enlarged by a whole factor. Lines between images, and the empty rest of the last row, are black or
    white, in contrast to the images' borders.
    """
    tiles = _tiles(images)
    n, height, width, _ = tiles.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    line = 255 if np.median(_borders(tiles)) < 128 else 0
    step_y, step_x = height + PADDING, width + PADDING
    grid = np.full((rows * step_y + PADDING, columns * step_x + PADDING, 3), line, dtype=np.uint8)
    for i, tile in enumerate(tiles):
        y, x = PADDING + i // columns * step_y, PADDING + i % columns * step_x
        grid[y : y + height, x : x + width] = tile
    return grid


def pair_grid(x: Tensor | np.ndarray, reconstruction: Tensor | np.ndarray, pairs_per_row: int) -> np.ndarray:
    """A grid of images, each with its reconstruction to the right."""
    pairs = torch.stack([torch.as_tensor(x), torch.as_tensor(reconstruction)], dim=1)  # (N, 2, C, H, W)
    return image_grid(pairs.flatten(0, 1), 2 * pairs_per_row)


def to_uint8(images: Tensor | np.ndarray) -> np.ndarray:
    """(N, C, H, W) in [0, 1] -> uint8 (N, H, W, C), to the nearest level; NaN is black."""
    levels = torch.as_tensor(images).detach().float().nan_to_num(nan=0.0).clamp(0, 1) * 255
    return levels.round().to(torch.uint8).cpu().permute(0, 2, 3, 1).numpy()


def in_colour(pixels: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, C) -> (N, H, W', 3): grey and RGB as they are; any other channels side by side, in grey."""
    if pixels.shape[-1] in SHOWN_AS_THEY_ARE:
        return np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    apart = np.pad(pixels, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=BETWEEN)  # (N, H, W + 1, C)
    row = apart.transpose(0, 1, 3, 2).reshape(*pixels.shape[:2], -1, 1)  # (N, H, C * (W + 1), 1)
    return np.broadcast_to(row, (*row.shape[:3], 3))


def how_shown(image_shape: tuple[int, int, int]) -> str:
    """What a person must know of pictures of images (C, H, W); empty if nothing, and for points, which have none."""
    n_channels, height, width = image_shape
    if n_channels in SHOWN_AS_THEY_ARE or height * width == 1:
        return ""
    return f"pictures show the {n_channels} channels of an image side by side, in grey; arrays have them as they are"


def save_png(path: Path, picture: np.ndarray) -> None:
    """Write uint8 (H, W, 3), atomically.

    Raises:
        DataError: if the folder cannot be made or written.
    """
    from PIL import Image

    with writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        Image.fromarray(picture).save(file, format="png")


def _tiles(images: Tensor | np.ndarray) -> np.ndarray:
    pixels = to_uint8(images)
    factor = -(-SMALL // max(pixels.shape[1:3]))
    tiles = in_colour(pixels)
    return tiles.repeat(factor, axis=1).repeat(factor, axis=2)


def _borders(tiles: np.ndarray) -> np.ndarray:
    edges = tiles[:, 0], tiles[:, -1], tiles[:, :, 0], tiles[:, :, -1]
    return np.concatenate([edge.reshape(-1) for edge in edges])
