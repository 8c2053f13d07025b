"""Shows and stores x: images as grids, points of the plane as scatter plots."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lvae_torch.data.shapes import POINT
from lvae_torch.reporting.figures import draw_points
from lvae_torch.reporting.grids import image_grid, pair_grid, save_png, to_uint8
from lvae_torch.synthesis.parts import Parts

MOST_ROWS = 16


def are_points(x: Tensor) -> bool:
    """Whether x, (n, C, H, W), are points of the plane."""
    return tuple(x.shape[1:]) == POINT


def stored(x: Tensor) -> dict[str, np.ndarray]:
    """x, (n, C, H, W), for a part file: ``images``, uint8 (n, H, W, C); or ``points``, float32 (n, 2)."""
    return {"points": _plane(x)} if are_points(x) else {"images": to_uint8(x)}


def save_first(path: Path, parts: Parts, n: int, columns: int) -> None:
    """Save a picture of parts that hold ``stored``: the first images, up to 16 rows, or all points."""
    first = parts.read(0)
    wanted, name = (n, "points") if "points" in first else (min(n, MOST_ROWS * columns), "images")
    found = [first[name]]
    while sum(map(len, found)) < wanted:
        found.append(parts.read(len(found))[name])
    together = np.concatenate(found)[:wanted]
    if name == "points":
        draw_points(path, {"": together})
    else:
        save_png(path, image_grid(torch.from_numpy(together).permute(0, 3, 1, 2).float() / 255, columns))


def save_shown(path: Path, x: Tensor, columns: int) -> None:
    """Save a picture of x, (n, C, H, W)."""
    if are_points(x):
        draw_points(path, {"": _plane(x)})
    else:
        save_png(path, image_grid(x, columns))


def save_pairs(path: Path, x: Tensor, shown: Tensor, pairs_per_row: int) -> None:
    """Save a picture of x, (n, C, H, W), beside its reconstructions ``shown``."""
    if are_points(x):
        draw_points(path, {"data": _plane(x), "reconstructions": _plane(shown)})
    else:
        save_png(path, pair_grid(x, shown, pairs_per_row))


def save_point_samples(path: Path, x: Tensor, with_noise: Tensor, means: Tensor) -> None:
    """Save points x, (n, 2, 1, 1), beside samples of p(x|z) and its means for z from the prior."""
    clouds = {"data": x, "samples with decoder noise": with_noise, "samples without": means}
    draw_points(path, {name: _plane(points) for name, points in clouds.items()})


def _plane(x: Tensor) -> np.ndarray:
    return x.detach().float().flatten(1).cpu().numpy()
