"""From the bytes of a picture file to an image of a dump. Light to import, for it runs in many processes."""

import io
import multiprocessing
import os
import threading
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np

from data_scripts.spans import BadFileError, Span

Resample = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
MAX_PIXELS = 2**26  # of a picture; more is taken for a decompression bomb


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
            BadFileError: saying what is wrong.
        """
        from PIL import Image, UnidentifiedImageError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(io.BytesIO(data)) as picture:
                    return self._rendered(picture)
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError) as error:
            raise BadFileError(str(error).split("<_io")[0]) from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise BadFileError(f"too large ({error})") from error

    def _rendered(self, picture: Any) -> np.ndarray:
        from PIL import Image, ImageOps

        if picture.width * picture.height > MAX_PIXELS:
            raise BadFileError(f"{picture.width} x {picture.height} pixels are too many")
        if picture.mode.startswith(("I", "F")):
            raise BadFileError(f"pixels of kind {picture.mode}; only 8 bits a colour are read")
        if self.needs and (picture.height, picture.width) != self.needs:
            raise BadFileError(f"{picture.height} x {picture.width} pixels, needs {self.needs[0]} x {self.needs[1]}")
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
            raise BadFileError(f"{height} x {width} pixels, too few for the crop {self.box}")
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


class Pages(NamedTuple):
    """Memory that processes share: pages of images, as a mapped file."""

    path: str
    shape: tuple[int, ...]  # (pages, images, H, W, C)

    def open(self) -> np.ndarray:
        """The memory itself."""
        return np.asarray(np.memmap(self.path, dtype=np.uint8, mode="r+", shape=self.shape))


opened = cache(Pages.open)  # once in each process


def render_into(
    render: Render, pages: Pages, page: int, files: list[tuple[str, Span]]
) -> tuple[list[str], dict[str, str]]:
    """Read and render files onto ``page``; returns the names of the good ones, and what is wrong with the others."""
    names, problems = list[str](), dict[str, str]()
    images = opened(pages)[page]
    for name, span in files:
        try:
            images[len(names)] = render(span.read())
            names.append(name)
        except BadFileError as error:
            problems[name] = str(error)
    return names, problems


def end_with_parent() -> None:
    """End this process when the one that started it ends, however it does: it would wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
