"""Pixels as a viewer shows them: transparency on a ground, colour profiles, 16 bits, frames, and what is damaged.

Light to import, for it runs in many processes; what it needs of Pillow is imported when the first picture comes.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from data_scripts.colour import coded_colours, in_srgb
from data_scripts.damage import damage_in, strict_jpeg
from data_scripts.float_tiff import FloatTiff, tifffile
from data_scripts.kinds import HEAD, kind_of
from data_scripts.spans import BadFileError
from lvae_torch.data.deep import Ends, RangeError, as_bytes, deep_grey, has_deep_colours, is_deep, put_transparency

Frames = Literal["", "first", "all"]
FORMATS = {"JPEG", "PNG", "GIF", "TIFF", "WEBP", "AVIF", "HEIF", "BMP", "JPEG2000", "PPM", "PSD", "QOI", "DDS"}
"""Of Pillow's, by the first bytes: none that runs another program, as PostScript's does."""
WITHOUT_MAGIC = ("TGA", "PCX", "SGI")
MOST_PIXELS = 500_000_000
MAX_PIXELS = 100_000_000
SCALED = f"a JPEG of more than {MAX_PIXELS:,} pixels, decoded at a fraction of its size by JPEG's own scaling"


class UndecidedError(BadFileError):
    """A picture that may be taken in several ways: the person who asked must choose."""


@dataclass(frozen=True)
class View:
    """How pictures of any kind become 8 bits of grey or sRGB."""

    background: tuple[int, int, int] = (255, 255, 255)
    """What transparent pixels lie on."""
    range: Ends | None = None
    """Values that become 0 and 255, of pixels that have more than 8 bits; None: the type's own."""
    frames: Frames = ""
    """Which frames of a picture that has several; "" refuses such."""
    max_pixels: int = MAX_PIXELS

    @property
    def description(self) -> dict[str, object]:
        """For ``dataset.json``."""
        scale = "integers by their upper 8 bits, floats from 0 to 1" if self.range is None else list(self.range)
        return {
            "background": "#{:02x}{:02x}{:02x}".format(*self.background),
            "colours": "profiles converted to sRGB",
            "range": scale,
            **({"frames": "all"} if self.frames == "all" else {}),
        }

    @property
    def max_bytes(self) -> int | None:
        """Of a picture's file; None for the usual limit."""
        return 4 * self.max_pixels if self.max_pixels > MAX_PIXELS else None

    def of_file(self, data: bytes, frame: int, notes: list[str], least: int = 0) -> Any:
        """A picture file's frame as a Pillow picture of mode L or RGB; adds to ``notes`` what was done to it.

        Args:
            least: a JPEG of more than ``MAX_PIXELS`` may be decoded smaller, as long as no side is less than this;
                0 for its whole size.
        Raises:
            UndecidedError: if the person must choose.
            BadFileError: saying what is wrong.
        """
        with any_size(), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with opened(data) as picture:
                self._check_size(picture.width, picture.height)
                frame = self._choose(picture, frame)
                if problem := damage_in(data, picture):
                    raise BadFileError(f"damaged ({problem})")
                shown = self._shown(picture, data, frame, notes, least)
        for warning in told:
            text = str(warning.message)
            if re.search("truncat|corrupt", text, re.IGNORECASE) and "EXIF" not in text:
                raise BadFileError(f"damaged ({text})")
        return shown

    def of_array(self, pixels: np.ndarray, notes: list[str]) -> Any:
        """The same of an array (H, W) or (H, W, C), C 1, 3 or 4."""
        self._check_size(pixels.shape[1] if pixels.ndim > 1 else 0, pixels.shape[0])
        return self._composed(self._picture(pixels, notes), notes)

    def _picture(self, pixels: np.ndarray, notes: list[str]) -> Any:
        from PIL import Image

        if pixels.ndim == 3 and pixels.shape[2] == 1:
            pixels = pixels[..., 0]
        if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)) or 0 in pixels.shape:
            raise BadFileError(f"an array {pixels.shape}, needs (H, W) or (H, W, C) of 1, 3 or 4 colours")
        return Image.fromarray(np.ascontiguousarray(self._as_bytes(pixels, notes)))

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            raise BadFileError(
                f"{width} x {height} pixels are too many: at most {self.max_pixels:,}; take more with --max-pixels N "
                f"(up to {MOST_PIXELS:,})"
            )

    def _choose(self, picture: Any, frame: int) -> int:
        """Go to the frame asked for, or to the only or first one, and return its number."""
        if not frame:
            frame, *others = frame_numbers(picture)
            if others and not self.frames:
                raise UndecidedError(
                    f"has {1 + len(others)} frames. Choose: --frames first takes one of each picture, --frames all each"
                )
        if frame:
            picture.seek(frame)
        return frame

    def _shown(self, picture: Any, data: bytes, frame: int, notes: list[str], least: int) -> Any:
        from PIL import Image

        keeps_8 = has_deep_colours(picture)
        if is_deep(picture) or keeps_8:
            notes.append("of more than 8 bits a colour, scaled to 8: see range")
        if is_deep(picture) or (keeps_8 and self.range is not None):
            levels = _all_bits(picture, data, frame)
            pixels = self._picture(levels, notes)
            put_transparency(pixels, picture, levels)
            return self._composed(_turned(pixels, picture), notes)
        is_jpeg = picture.format in ("JPEG", "MPO")
        if is_jpeg and least and picture.width * picture.height > MAX_PIXELS:
            picture.draft(picture.mode, (least, least))
            notes.append(SCALED)
        if is_jpeg and (pixels_8 := strict_jpeg(data, picture)) is not None:
            shown = Image.fromarray(pixels_8)
            shown.info.update(picture.info)
        else:
            picture.load()  # a TIFF is turned by this already
            shown = picture
        notes += coded_colours(data, picture)
        return self._composed(in_srgb(_turned(shown, picture), notes), notes)

    def _composed(self, picture: Any, notes: list[str]) -> Any:
        """Without transparency."""
        from PIL import Image

        if not (picture.has_transparency_data or picture.mode in ("RGBa", "La")):
            return picture if picture.mode in ("L", "RGB") else picture.convert("L" if picture.mode == "1" else "RGB")
        if picture.mode not in ("RGBA", "LA"):
            picture = picture.convert("RGBA")
        alpha = picture.getchannel("A")
        low, high = alpha.getextrema()
        colours = picture.convert("L" if picture.mode == "LA" else "RGB")
        if low == 255:
            return colours
        notes.append(
            "with transparency, laid on the background" if high else "wholly transparent: only background is left"
        )
        ground = Image.new("RGB", picture.size, self.background)
        ground.paste(colours.convert("RGB"), mask=alpha)
        return ground

    def _as_bytes(self, pixels: np.ndarray, notes: list[str]) -> np.ndarray:
        """Numbers of any kind as uint8."""
        if self.range is None and pixels.dtype == np.uint16 and int(pixels.max()) < 2**14:
            notes.append("of 16 bits, of which less than a quarter of the range is used: see --range")
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise BadFileError("has pixels that are not finite")
        try:
            return as_bytes(pixels, self.range)
        except RangeError as error:
            raise UndecidedError(f"{error}. Say which values are black and white: --range LOW:HIGH") from error


def frame_numbers(picture: Any) -> list[int]:
    """Frames of an open picture that are pictures of their own: no previews, gain maps or smaller copies."""
    if picture.format in ("JPEG", "MPO", "PSD", "HEIF") or (n := int(getattr(picture, "n_frames", 1))) == 1:
        return [0]  # a phone's other images are previews, depth and gain maps
    if picture.format != "TIFF":
        return list(range(n))
    found = []
    for k in range(n):
        picture.seek(k)
        if not int(picture.tag_v2.get(254, 0)) & 1:  # NewSubfileType: a smaller copy of another page
            found.append(k)
    picture.seek(0)
    return found or [0]


def opened(data: bytes) -> Any:
    """A picture, its head read.

    Raises:
        UndecidedError: for a kind that needs a package which is not installed.
        BadFileError: for what is no picture.
    """
    from PIL import Image, UnidentifiedImageError

    if (kind := kind_of(data[:HEAD])) == "HEIF":
        _register_heif()
    try:
        return Image.open(io.BytesIO(data), formats=(kind,) if kind in FORMATS else WITHOUT_MAGIC)
    except UnidentifiedImageError as error:
        if data[:4] not in (b"II*\0", b"MM\0*"):
            raise BadFileError("no picture, or damaged at its beginning" if data else "is empty") from error
        return FloatTiff(data)


@cache
def _register_heif() -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise UndecidedError(
            "a HEIC picture needs pillow-heif, which is not installed. Install it: pip install 'lvae_torch[heic]'"
        ) from error
    pillow_heif.register_heif_opener()


def _all_bits(picture: Any, data: bytes, frame: int) -> np.ndarray:
    """Pixels with all their bits: (H, W) or (H, W, C)."""
    if picture.format == "TIFF" and (picture.mode in ("RGB", "RGBA") or isinstance(picture, FloatTiff)):
        try:
            pixels = np.asarray(tifffile().imread(io.BytesIO(data), key=frame))
        except Exception as error:  # a damaged file may raise anything
            raise BadFileError(f"cannot be read ({error})") from error
        is_planes = pixels.ndim == 3 and pixels.shape[0] in (3, 4) and pixels.shape[2] not in (3, 4)
        return np.moveaxis(pixels, 0, -1) if is_planes else pixels
    if picture.mode in ("RGB", "RGBA", "LA"):
        raise UndecidedError(
            f"a {picture.format} of 16 bits a colour, of which 8 are read: give no --range, or save TIFFs"
        )
    return deep_grey(picture)


def _turned(pixels: Any, picture: Any) -> Any:
    """``pixels`` as the camera held ``picture``."""
    from PIL.Image import Transpose as T  # noqa: N817

    ways = {2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE, 6: T.ROTATE_270,
            7: T.TRANSVERSE, 8: T.ROTATE_90}  # fmt: skip
    way = ways.get(picture.getexif().get(0x0112, 1))
    if way is None:
        return pixels
    turned = pixels.transpose(way)
    turned.info.update(pixels.info)
    return turned


@contextmanager
def any_size() -> Iterator[None]:
    """Without Pillow's own limit of pixels, in place of which ``max_pixels`` stands."""
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
