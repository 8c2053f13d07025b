"""From the bytes of a picture file to an image of a dump. Light to import, for it runs in many processes."""

import hashlib
import io
import multiprocessing
import os
import threading
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np

from data_scripts.rows import Readable, Value
from data_scripts.spans import BadFileError
from data_scripts.viewing import UndecidedError, View
from lvae_torch.data.crop import Box, middle

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
    box: Box | None = None
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
    view: View | None = None
    """Pictures of any kind, as a viewer shows them; without it, only plain ones of 8 bits."""

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

    def shown(self, value: Value, frame: int = 0) -> tuple[np.ndarray, tuple[str, ...]]:
        """uint8 (H, W, C) of a picture file's frame or of an array, and what was done to it on the way.

        Raises:
            BadFileError: saying what is wrong.
        """
        if self.view is None:
            assert isinstance(value, bytes) and not frame, frame
            return self(value), ()
        notes = list[str]()
        try:
            if isinstance(value, bytes):
                picture = self.view.of_file(value, frame, notes, least=2 * max(self.size))
            else:
                picture = self.view.of_array(value, notes)
            image = self._fitted(picture, notes)
        except BadFileError:
            raise
        except Exception as error:  # a damaged file may make Pillow raise anything
            raise BadFileError(str(error).split("<_io")[0] or type(error).__name__) from error
        return image, tuple(dict.fromkeys(notes))

    def _rendered(self, picture: Any) -> np.ndarray:
        from PIL import ImageOps

        if picture.width * picture.height > MAX_PIXELS:
            raise BadFileError(f"{picture.width} x {picture.height} pixels are too many")
        if picture.mode.startswith(("I", "F")):
            raise BadFileError(f"pixels of kind {picture.mode}; only 8 bits a colour are read")
        if self.needs and (picture.height, picture.width) != self.needs:
            raise BadFileError(f"{picture.height} x {picture.width} pixels, needs {self.needs[0]} x {self.needs[1]}")
        if self.upright:
            picture = ImageOps.exif_transpose(picture)
        return self._fitted(picture, [])

    def _fitted(self, picture: Any, notes: list[str]) -> np.ndarray:
        """Crop and resize. A large picture is copied as seldom as can be: each copy may take gigabytes."""
        from PIL import Image

        mode = "RGB" if self.channels == 3 else "L"
        if picture.mode not in (mode, "L"):  # grey becomes three equal colours in the end, when it is small
            picture = picture.convert(mode)
        box = self._box(picture.height, picture.width)
        if box and box != (0, 0, picture.width, picture.height):
            picture = picture.crop(box)
        if self.jpeg_before_resize:
            picture = _through_jpeg(picture)
        height, width = self.size
        if picture.height < height or picture.width < width:
            notes.append("enlarged, for they are smaller than --size")
        if (picture.height, picture.width) != self.size:
            picture = picture.resize((width, height), Image.Resampling[self.resample.upper()])
        image = np.asarray(picture.convert(mode)).reshape(height, width, self.channels)
        return (image < 128).astype(np.uint8) if self.ink else image

    def _box(self, height: int, width: int) -> Box | None:
        if self.crop == "centre":
            return middle(height, width, self.size)
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
        if self.ink:
            said["ink"] = "darker than 128 is 1, else 0"
        return {**said, **(self.view.description if self.view else {}), "pillow": PIL.__version__}

    @property
    def max_bytes(self) -> int | None:
        """Of a picture's file; None for the usual limit."""
        return self.view.max_bytes if self.view else None


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


class Frame(NamedTuple):
    """One frame of a picture that has several."""

    whole: Readable
    number: int

    @property
    def size(self) -> int:
        return self.whole.size

    @property
    def modified(self) -> int:
        return self.whole.modified

    @property
    def crc(self) -> int | None:
        return self.whole.crc

    def read(self, most: int | None = None) -> Value:
        return self.whole.read(most)

    def head(self, n: int) -> bytes:
        return self.whole.head(n)


class Outcome(NamedTuple):
    """What became of one picture."""

    name: str
    problem: str = ""
    """What is wrong with it; "" for a good one, whose image stands on the page."""
    is_undecided: bool = False
    """Whether the person who asked must say how to take it."""
    notes: tuple[str, ...] = ()
    digest: str = ""
    """Of the image, where it was asked for."""


def render_into(render: Render, pages: Pages, page: int, files: list[tuple[str, Readable]]) -> list[Outcome]:
    """Read and render files onto ``page``, the good ones one after the other."""
    outcomes, n_good = list[Outcome](), 0
    images = opened(pages)[page]
    for name, span in files:
        try:
            image, notes, digest = rendered(render, span)
        except UndecidedError as error:
            outcomes.append(Outcome(name, str(error), is_undecided=True))
        except BadFileError as error:
            outcomes.append(Outcome(name, str(error)))
        else:
            images[n_good] = image
            n_good += 1
            outcomes.append(Outcome(name, notes=notes, digest=digest))
    return outcomes


def rendered(render: Render, span: Readable) -> tuple[np.ndarray, tuple[str, ...], str]:
    """An image, what was done to it, and its digest if pictures are shown as in a viewer.

    Raises:
        BadFileError: saying what is wrong.
    """
    image, notes = render.shown(span.read(render.max_bytes), span.number if isinstance(span, Frame) else 0)
    return image, notes, hashlib.sha256(image.tobytes()).hexdigest()[:16] if render.view else ""


def end_with_parent() -> None:
    """End this process when the one that started it ends, however it does: it would wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
