"""The colours of a picture as sRGB, by the profile that it carries or the gamma of its PNG."""

import io
import re
import struct
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np

SRGB_GAMMA = 0.45455
CODED = re.compile(rb"colrnclx(?P<box>....)|cICP(?P<chunk>..)", re.DOTALL)  # of AVIF and HEIC, of PNG
HEAD = 2**16  # bytes in which such a code stands
LIKE_SRGB = {1, 2, 5, 6}, {1, 2, 6, 13, 14, 15}  # ITU-T H.273: colour primaries, transfer characteristics


def in_srgb(picture: Any, notes: list[str]) -> Any:
    """The picture's colours as sRGB, by the profile that it carries or PNG's gamma; without these as it is."""
    from PIL import ImageCms

    profile = picture.info.get("icc_profile")
    if not profile:
        return _without_gamma(picture, notes)
    alpha = picture.getchannel("A") if picture.mode in ("RGBA", "LA") else None
    if alpha is None and picture.has_transparency_data:
        picture = picture.convert("RGBA")
        alpha = picture.getchannel("A")
    try:
        transform, mode = _transform(profile, picture.mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        notes.append("with a colour profile that cannot be used, taken as sRGB")
        return picture
    if transform is None:
        return picture
    notes.append("with a colour profile, converted to sRGB")
    converted = ImageCms.applyTransform(picture if picture.mode == mode else picture.convert(mode), transform)
    assert converted is not None
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


@lru_cache(64)
def _transform(profile: bytes, mode: str) -> tuple[Any, str]:
    """From a profile to sRGB, and the mode that it starts from; None where that changes next to nothing.

    Raises:
        ValueError, ImageCms.PyCMSError: if the profile is none, or of other colours than the picture.
    """
    from PIL import Image, ImageCms

    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    # A grey or indexed picture may carry a profile of three colours.
    start = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}.get(space, "")
    is_grey = mode in ("1", "L", "LA")
    if not start or (mode == "CMYK") != (start == "CMYK") or (start == "L" and not is_grey) or start == "LAB":
        raise ValueError(f"a profile of {space} for a picture of {mode}")
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), start, "RGB")
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    if start == "L":
        probe = levels[None]
    else:
        channels = 4 if start == "CMYK" else 3
        probe = np.stack(np.meshgrid(*[levels[::4]] * channels), axis=-1).reshape(1, -1, channels)
    shown = np.asarray(ImageCms.applyTransform(Image.fromarray(probe, start), transform)).astype(int)
    same = start != "CMYK" and np.abs(shown - probe.reshape(*probe.shape[:2], -1)).max() <= 2
    return (None if same else transform), start


def coded_colours(data: bytes, picture: Any) -> list[str]:
    """What to tell of a picture without a profile whose colours are coded as other ones than sRGB's."""
    if picture.format not in ("AVIF", "HEIF", "PNG") or picture.info.get("icc_profile"):
        return []
    if not (match := CODED.search(data[:HEAD])):
        return []
    code = struct.unpack(">HH", match["box"]) if match["box"] else tuple(match["chunk"])
    is_like = all(number in usual for number, usual in zip(code, LIKE_SRGB, strict=True))
    return [] if is_like else ["with wider colours or a higher range than sRGB's by a code, taken as sRGB all the same"]


def _without_gamma(picture: Any, notes: list[str]) -> Any:
    """A PNG may say how bright its numbers are, without being sRGB."""
    gamma = picture.info.get("gamma")
    if not gamma or "srgb" in picture.info or abs(gamma / SRGB_GAMMA - 1) < 0.05:
        return picture
    with suppress(ZeroDivisionError, OverflowError):
        curve = (255 * (np.arange(256) / 255) ** (SRGB_GAMMA / gamma)).round().astype(int).tolist()
        notes.append("with a gamma of its own, converted to sRGB")
        if picture.mode in ("P", "1"):
            picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
        n_colours = len(picture.getbands()) - (picture.mode in ("RGBA", "LA"))
        return picture.point(curve * n_colours + list(range(256)) * (picture.mode in ("RGBA", "LA")))
    return picture
