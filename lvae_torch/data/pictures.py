"""A picture file of any size, fitted to the images of a dump: cropped, scaled and in its colours."""

import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lvae_torch.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Of Pillow's: what people have, and none that runs another program."""
MOST_BYTES = 2**25
MOST_PIXELS = 50_000_000
ImageShape = tuple[int, int, int]


@dataclass(frozen=True)
class PictureFit:
    """From the bytes of a picture file to an image of ``image_shape``, as the pictures of a dump became its images."""

    image_shape: ImageShape
    """(C, H, W)."""
    box: tuple[int, int, int, int] | None = None
    """(left, top, right, bottom), where the picture is large enough for it."""
    stretch: bool = False
    """Take the whole picture, whatever its proportions; else the largest part of the image's, in the middle."""
    resample: str = "bilinear"
    background: str = "#ffffff"
    """What transparent pixels lie on."""

    @classmethod
    def of(cls, image_shape: ImageShape, provenance: Mapping[str, Any]) -> "PictureFit":
        """As a dump's description says that it was made; a dump that was made of arrays says nothing."""
        crop, resize = provenance.get("crop", "centre"), re.match(r"Pillow (\w+)", str(provenance.get("resize", "")))
        box = tuple(map(int, crop)) if isinstance(crop, list) and len(crop) == 4 else None
        background = str(provenance.get("background", cls.background))
        return cls(
            image_shape,
            (box[0], box[1], box[2], box[3]) if box else None,
            crop == "none",
            resize[1] if resize else cls.resample,
            background if re.fullmatch(r"#[0-9a-f]{6}", background) else cls.background,
        )

    def __call__(self, data: bytes, place: str = "this picture") -> tuple[np.ndarray, str]:
        """uint8 (H, W, C), and what was done, in words for the person whose picture it is.

        Raises:
            DataError: naming ``place``, if it is too large, or no picture that can be read.
        """
        from PIL import Image, ImageOps

        channels, height, width = self.image_shape
        if channels not in (1, 3):
            raise DataError(f"{place}: pictures have 1 or 3 channels, but the model's images have {channels}.")
        if len(data) > MOST_BYTES:
            raise DataError(f"{place}: has more than {MOST_BYTES >> 20} MiB; make it smaller first.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's own limit of pixels; ours is below
                with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                    if opened.width * opened.height > MOST_PIXELS:
                        raise DataError(
                            f"{place}: {opened.width} x {opened.height} pixels are too many; at most {MOST_PIXELS:,}."
                        )
                    picture = self._on_background(ImageOps.exif_transpose(opened))
                    box = self._box(picture.width, picture.height)
                    shown = picture.crop(box).convert("RGB" if channels == 3 else "L")
                    size, scale = (width, height), Image.Resampling[self.resample.upper()]
                    shown = shown if shown.size == size else shown.resize(size, scale)
        except DataError:
            raise
        except Image.DecompressionBombError as error:
            raise DataError(f"{place}: it has too many pixels; at most {MOST_PIXELS:,}.") from error
        except Exception as error:  # a damaged file may make Pillow raise anything
            told = str(error).split("<_io")[0].strip() or type(error).__name__
            raise DataError(f"{place}: no picture that can be read ({told}). Known: {', '.join(FORMATS)}.") from error
        told = self._told(picture.width, picture.height, box, grey=channels == 1 and picture.mode != "L")
        return np.asarray(shown).reshape(height, width, channels), told

    def _on_background(self, picture: Any) -> Any:
        """As grey or RGB, without transparency."""
        from PIL import Image

        if picture.mode.startswith(("I", "F")):  # of more than 8 bits
            values = np.asarray(picture, np.float64)
            least, most = values.min(), max(values.max(), values.min() + 1)
            return Image.fromarray(((values - least) * (255 / (most - least))).round().astype(np.uint8))
        if picture.has_transparency_data:
            ground = Image.new("RGBA", picture.size, self.background)
            ground.alpha_composite(picture.convert("RGBA"))
            return ground.convert("RGB")
        return picture if picture.mode in ("L", "RGB") else picture.convert("L" if picture.mode == "1" else "RGB")

    def _box(self, width: int, height: int) -> tuple[int, int, int, int]:
        if self.box and self.box[2] <= width and self.box[3] <= height:
            return self.box
        if self.stretch:
            return 0, 0, width, height
        _, to_height, to_width = self.image_shape
        scale = min(height / to_height, width / to_width)
        h, w = max(1, round(to_height * scale)), max(1, round(to_width * scale))
        top, left = round((height - h) / 2), round((width - w) / 2)
        return left, top, left + w, top + h

    def _told(self, width: int, height: int, box: tuple[int, int, int, int], grey: bool) -> str:
        _, to_height, to_width = self.image_shape
        cropped = "" if box == (0, 0, width, height) else f"cropped to {box[2] - box[0]} x {box[3] - box[1]}, "
        scaled = "" if (box[2] - box[0], box[3] - box[1]) == (to_width, to_height) else f"scaled ({self.resample}) to "
        return f"{width} x {height}, {cropped}{'made grey, ' if grey else ''}{scaled}{to_width} x {to_height} pixels"
