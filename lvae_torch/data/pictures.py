"""A picture file of any size, fitted to the images of a dump: cropped, scaled and in its colours."""

import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lvae_torch.data.crop import Box, middle
from lvae_torch.data.deep import Ends, RangeError, as_bytes, deep_grey, has_deep_colours, is_deep, put_transparency
from lvae_torch.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Of Pillow's: what people have, and none that runs another program."""
MOST_BYTES = 2**25
MOST_PIXELS = 50_000_000
ImageShape = tuple[int, int, int]


@dataclass(frozen=True)
class PictureFit:
    """From the bytes of a picture file to an image of ``image_shape``, as the pictures of a dump became its images.

    But for colour profiles, which are not read, and a pass through JPEG, which is not repeated.
    """

    image_shape: ImageShape
    """(C, H, W)."""
    box: Box | None = None
    """(left, top, right, bottom), where the picture is large enough for it."""
    stretch: bool = False
    """Take the whole picture, whatever its proportions; else the largest part of the image's, in the middle."""
    resample: str = "bilinear"
    background: str = "#ffffff"
    """What transparent pixels lie on."""
    range: Ends | None = None
    """Values that become 0 and 255, of pixels that have more than 8 bits; None: the type's own."""
    ink: bool = False
    """Dark becomes 255 and bright 0, with nothing between."""

    @classmethod
    def of(cls, image_shape: ImageShape, provenance: Mapping[str, Any]) -> "PictureFit":
        """As a dump's description says that it was made; a dump that was made of arrays says nothing.

        Dumps of ink that were made before ``ink`` was written down say so under ``pixels``.
        """
        crop, resize = provenance.get("crop", "centre"), re.match(r"Pillow (\w+)", str(provenance.get("resize", "")))
        box = tuple(map(int, crop)) if isinstance(crop, list) and len(crop) == 4 else None
        background = str(provenance.get("background", cls.background))
        return cls(
            image_shape,
            (box[0], box[1], box[2], box[3]) if box else None,
            crop == "none",
            resize[1] if resize else cls.resample,
            background if re.fullmatch(r"#[0-9a-f]{6}", background) else cls.background,
            _ends(provenance.get("range")),
            "ink" in provenance or provenance.get("pixels") == "ink is 1",
        )

    def __call__(self, data: bytes, place: str = "this picture") -> tuple[np.ndarray, str]:
        """uint8 (H, W, C), and what was done, in words for the person whose picture it is.

        Raises:
            DataError: naming ``place``, if it is too large, or no picture that can be read.
        """
        from PIL import Image

        channels, height, width = self.image_shape
        if channels not in (1, 3):
            raise DataError(f"{place}: pictures have 1 or 3 channels, but the model's images have {channels}.")
        if len(data) > MOST_BYTES:
            raise DataError(f"{place}: has more than {MOST_BYTES >> 20} MiB; make it smaller first.")
        try:
            shown, told = self._fitted(data, place)
        except DataError:
            raise
        except RangeError as error:
            raise DataError(f"{place}: {error}. Save it with 8 bits a colour: black is 0, white 255.") from error
        except Image.DecompressionBombError as error:
            raise DataError(f"{place}: it has too many pixels; at most {MOST_PIXELS:,}.") from error
        except Exception as error:  # a damaged file may make Pillow raise anything
            told = str(error).split("<_io")[0].strip() or type(error).__name__
            raise DataError(f"{place}: no picture that can be read ({told}). Known: {', '.join(FORMATS)}.") from error
        pixels = np.asarray(shown).reshape(height, width, channels)
        return (np.where(pixels < 128, np.uint8(255), np.uint8(0)) if self.ink else pixels), told

    def _fitted(self, data: bytes, place: str) -> tuple[Any, str]:
        """As a Pillow picture of the size and the colours of ``image_shape``, and what was done."""
        from PIL import Image, ImageOps

        channels, height, width = self.image_shape
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own limit of pixels; ours is below
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                if opened.width * opened.height > MOST_PIXELS:
                    raise DataError(
                        f"{place}: {opened.width} x {opened.height} pixels are too many; at most {MOST_PIXELS:,}."
                    )
                picture = self._on_background(ImageOps.exif_transpose(self._of_8_bits(opened)))
        box = self._box(picture.width, picture.height)
        shown = picture.crop(box).convert("RGB" if channels == 3 else "L")
        size, scale = (width, height), Image.Resampling[self.resample.upper()]
        shown = shown if shown.size == size else shown.resize(size, scale)
        return shown, self._told(picture.width, picture.height, box, grey=channels == 1 and picture.mode != "L")

    def _of_8_bits(self, opened: Any) -> Any:
        """An open picture, or one of 8 bits in place of more."""
        from PIL import Image

        if not is_deep(opened):
            if self.range and has_deep_colours(opened):
                low, high = self.range
                raise RangeError(f"has 16 bits a colour, of which 8 are read, not the values from {low:g} to {high:g}")
            return opened
        levels = deep_grey(opened)
        grey = Image.fromarray(as_bytes(levels, self.range))
        grey.info["exif"] = opened.info.get("exif", b"")
        put_transparency(grey, opened, levels)
        return grey

    def _on_background(self, picture: Any) -> Any:
        """As grey or RGB, without transparency."""
        from PIL import Image

        if picture.has_transparency_data:
            ground = Image.new("RGBA", picture.size, self.background)
            ground.alpha_composite(picture.convert("RGBA"))
            return ground.convert("RGB")
        return picture if picture.mode in ("L", "RGB") else picture.convert("L" if picture.mode == "1" else "RGB")

    def _box(self, width: int, height: int) -> Box:
        if self.box and self.box[2] <= width and self.box[3] <= height:
            return self.box
        if self.stretch:
            return 0, 0, width, height
        return middle(height, width, self.image_shape[1:])

    def _told(self, width: int, height: int, box: Box, grey: bool) -> str:
        _, to_height, to_width = self.image_shape
        cropped = "" if box == (0, 0, width, height) else f"cropped to {box[2] - box[0]} x {box[3] - box[1]}, "
        scaled = "" if (box[2] - box[0], box[3] - box[1]) == (to_width, to_height) else f"scaled ({self.resample}) to "
        made = ("made grey, " if grey else "") + ("dark made bright, " if self.ink else "")
        return f"{width} x {height}, {cropped}{made}{scaled}{to_width} x {to_height} pixels"


def _ends(said: object) -> Ends | None:
    """The ``range`` of a dump's description: two numbers, or words for the type's own."""
    match said:
        case [int() | float() as low, int() | float() as high] if low < high:
            return float(low), float(high)
    return None
