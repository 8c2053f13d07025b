"""Grids from images that several ranks have written."""

import numpy as np
import torch

from lvae_torch.reporting.grids import image_grid
from lvae_torch.synthesis.parts import Parts

MOST_ROWS = 16


def first_images_grid(parts: Parts, n: int, columns: int) -> np.ndarray:
    """The first images, up to 16 rows of them, as one picture."""
    wanted = min(n, MOST_ROWS * columns)
    images: list[np.ndarray] = []
    while sum(len(part) for part in images) < wanted:
        images.append(parts.read(len(images))["images"])
    first = torch.from_numpy(np.concatenate(images)[:wanted])
    return image_grid(first.permute(0, 3, 1, 2).float() / 255, columns)
