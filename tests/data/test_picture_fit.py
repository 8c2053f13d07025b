"""A picture of any size becomes an image as the pictures of a dump did."""

import io
from typing import Any

import numpy as np
from explore_cases import png
from PIL import Image

from lvae_torch.data.pictures import PictureFit


def test_pictures_are_cropped_and_scaled_as_the_dump_was() -> None:
    """Held against Pillow by hand; a box that does not fit gives way to the middle."""
    data = png(30, 20, "RGB")
    whole = Image.open(io.BytesIO(data))
    nearest, bilinear = Image.Resampling.NEAREST, Image.Resampling.BILINEAR
    said: list[tuple[dict[str, Any], Any]] = [
        ({"crop": "none", "resize": "Pillow nearest, anti-aliased"}, whole.resize((8, 8), nearest)),
        ({"crop": "centre", "resize": "Pillow bilinear"}, whole.crop((5, 0, 25, 20)).resize((8, 8), bilinear)),
        ({"crop": [2, 1, 18, 17]}, whole.crop((2, 1, 18, 17)).resize((8, 8), bilinear)),
        ({"crop": [15, 40, 163, 188]}, whole.crop((5, 0, 25, 20)).resize((8, 8), bilinear)),
        ({}, whole.crop((5, 0, 25, 20)).resize((8, 8), bilinear)),
    ]
    for provenance, expected in said:
        pixels, _ = PictureFit.of((3, 8, 8), provenance)(data)
        assert np.array_equal(pixels, np.asarray(expected)), provenance
