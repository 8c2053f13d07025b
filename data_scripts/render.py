"""From the bytes of a picture file to an image of a dump. Light to import, for it runs in many processes."""

import io
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Resample = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
MAX_PIXELS = 2**26  # of a picture; more is taken for a decompression bomb


class BadPictureError(Exception):
    """A picture that is damaged or not what it should be."""


@dataclass(frozen=True)
class Render:
    """Decode, crop, resize. Resizing is Pillow's, which widens its filter when it shrinks (anti-aliasing)."""

    size: tuple[int, int]
    """(H, W) of the result."""
    channels: int = 3
    crop: Literal["none", "centre", "box"] = "none"
    """The largest part of the result's proportions in the middle, or ``box``."""
    box: tuple[int, int, int, int] | None = None
    """(left, top, right, bottom)."""
    resample: Resample = "bilinear"
    needs: tuple[int, int] | None = None
    """(H, W) that the picture must have."""
    jpeg_before_resize: bool = False
    """Pass the crop through JPEG at Pillow's default quality, as Efficient-VDVAE does for CelebA."""
    ink: bool = False
    """Black on white to 1 on 0."""
    upright: bool = False
    """Turn as the camera says."""

    def __call__(self, data: bytes) -> np.ndarray:
        """uint8 (H, W, C).

        Raises:
            BadPictureError: saying what is wrong.
        """
        from PIL import Image, UnidentifiedImageError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(io.BytesIO(data)) as picture:
                    return self._rendered(picture)
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError) as error:
            raise BadPictureError(str(error).split("<_io")[0]) from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise BadPictureError(f"too large ({error})") from error

    def _rendered(self, picture: Any) -> np.ndarray:
        from PIL import Image, ImageOps

        if picture.width * picture.height > MAX_PIXELS:
            raise BadPictureError(f"{picture.width} x {picture.height} pixels are too many")
        if picture.mode.startswith(("I", "F")):
            raise BadPictureError(f"pixels of kind {picture.mode}; only 8 bits a colour are read")
        if self.needs and (picture.height, picture.width) != self.needs:
            raise BadPictureError(f"{picture.height} x {picture.width} pixels, needs {self.needs[0]} x {self.needs[1]}")
        if self.upright:
            picture = ImageOps.exif_transpose(picture)
        picture = picture.convert("RGB" if self.channels == 3 else "L")
        if box := self._box(picture.height, picture.width):
            picture = picture.crop(box)
        if self.jpeg_before_resize:
            picture = _through_jpeg(picture)
        height, width = self.size
        if (picture.height, picture.width) != self.size:
            picture = picture.resize((width, height), Image.Resampling[self.resample.upper()])
        image = np.asarray(picture).reshape(height, width, self.channels)
        return (image < 128).astype(np.uint8) if self.ink else image

    def _box(self, height: int, width: int) -> tuple[int, int, int, int] | None:
        if self.crop == "centre":
            scale = min(height / self.size[0], width / self.size[1])
            h, w = round(self.size[0] * scale), round(self.size[1] * scale)
            # Half a pixel is rounded as torchvision's CenterCrop does it.
            top, left = round((height - h) / 2), round((width - w) / 2)
            return left, top, left + w, top + h
        if self.box and (self.box[2] > width or self.box[3] > height):
            raise BadPictureError(f"{height} x {width} pixels, too few for the crop {self.box}")
        return self.box

    @property
    def description(self) -> dict[str, object]:
        """For ``dataset.json``."""
        import PIL

        said: dict[str, object] = {"crop": self.box or self.crop, "resize": f"Pillow {self.resample}, anti-aliased"}
        if self.jpeg_before_resize:
            said["jpeg"] = "crop passed through JPEG, Pillow's default quality, before the resize"
        return {**said, "pillow": PIL.__version__}


def _through_jpeg(picture: Any) -> Any:
    from PIL import Image

    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    return Image.open(buffer)


def render_all(render: Render, files: list[tuple[str, bytes]]) -> list[tuple[str, np.ndarray | str]]:
    """Each name with its image, or with what is wrong with it."""

    def one(data: bytes) -> np.ndarray | str:
        try:
            return render(data)
        except BadPictureError as error:
            return str(error)

    return [(name, one(data)) for name, data in files]
