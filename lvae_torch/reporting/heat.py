"""Heat maps over an image: where on it a quantity lies."""

import numpy as np
import torch
from torch import Tensor

from lvae_torch.reporting.grids import SMALL, in_colour, to_uint8

STOPS = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], dtype=np.float64)
"""Colours from nothing to the most, dark to bright, evenly spaced."""
LEAST_SIDE = 448  # pixels of a heat map's longer side, more or less


def map_of(units: Tensor) -> Tensor:
    """What lies at each place, (h, w), of values of units, (Z, h, w), or (Z,) without places, which counts as one."""
    return units.sum(dim=0).reshape(units.shape[1:] or (1, 1))


def on_image(values: Tensor, canvas: tuple[int, int], image_size: tuple[int, int]) -> Tensor:
    """A map of amounts, (h, w), spread over the pixels of an image, (H, W), without what lies in its padding.

    Args:
        canvas: height and width that the map covers, with the image in its middle.
    """
    height, width = canvas
    rows = torch.arange(height, device=values.device) * values.shape[0] // height
    columns = torch.arange(width, device=values.device) * values.shape[1] // width
    spread = values[rows][:, columns] / (torch.bincount(rows)[rows][:, None] * torch.bincount(columns)[columns])
    top, left = (height - image_size[0]) // 2, (width - image_size[1]) // 2
    return spread[top : top + image_size[0], left : left + image_size[1]]


def heat_picture(x: Tensor, heat: Tensor) -> np.ndarray:
    """An image x, (C, H, W) in [0, 1], in grey under the colours of ``heat``, (H, W): uint8 (height, width, 3).

    The brightest colour is the largest value; nothing and less is the image itself.
    """
    grey = np.asarray(in_colour(to_uint8(x.mean(dim=0, keepdim=True)[None]))[0], np.float64)
    share = heat.clamp(min=0).double().cpu().numpy()
    share = share / max(float(share.max()), 1e-12)
    place = share * (len(STOPS) - 1)
    below = np.minimum(place.astype(int), len(STOPS) - 2)
    part = (place - below)[..., None]
    colour = (1 - part) * STOPS[below] + part * STOPS[below + 1]
    opacity = 0.85 * np.sqrt(share)[..., None]
    picture = ((1 - opacity) * (0.6 * grey) + opacity * colour).round().astype(np.uint8)
    factor = max(-(-SMALL // max(picture.shape[:2])), LEAST_SIDE // max(picture.shape[:2]), 1)
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)
