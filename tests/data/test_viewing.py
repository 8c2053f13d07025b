"""Pixels of own pictures as a viewer shows them, and what is damaged: against sums by hand, Pillow and slices."""

import io
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from test_images_recipe import make, noise, write_folder
from test_own_pictures import account_of, images_of
from upstream_pictures import encoded

from data_scripts.damage import damage_in, strict_jpeg
from data_scripts.render import Render
from data_scripts.spans import BadFileError
from data_scripts.viewing import SCALED, View
from lvae_torch.errors import CfgError

pytestmark = pytest.mark.usefixtures("at_once")


# --- pixels as a viewer shows them ------------------------------------------------------------------------------------


def shown(
    picture: Image.Image, kind: str = "PNG", view: View | None = None, **how: Any
) -> tuple[np.ndarray, list[str]]:
    notes: list[str] = []
    return np.asarray((view or View()).of_file(encoded(picture, kind, **how), 0, notes).convert("RGB")), notes


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (10, 200, 30)])
def test_transparent_pixels_lie_on_the_background(background: tuple[int, int, int]) -> None:
    pixels = noise(6, 5)
    alpha = np.arange(30, dtype=np.uint8).reshape(6, 5) * np.uint8(8)
    image, notes = shown(Image.fromarray(np.dstack([pixels, alpha])), view=View(background))
    share = alpha[..., None] / 255
    assert abs(image - (pixels * share + np.array(background) * (1 - share))).max() <= 1.01
    assert notes == ["with transparency, laid on the background"]
    grey, _ = shown(Image.fromarray(np.dstack([pixels[..., 0], alpha])), view=View(background))
    assert abs(grey - (pixels[..., :1] * share + np.array(background) * (1 - share))).max() <= 1.01
    assert shown(Image.fromarray(np.dstack([pixels, np.full_like(alpha, 255)])))[1] == []


def test_a_transparent_colour_of_a_palette_counts(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([9, 9, 9, 50, 60, 70])
    picture.putpixel((0, 0), 0)
    image, _ = shown(picture, "GIF", transparency=0)
    assert image[0, 0].tolist() == [255] * 3 and image[1, 1].tolist() == [50, 60, 70]


def matrix_profile(gamma: float, primaries: str = "srgb") -> bytes:
    """An ICC profile of three curves and a matrix, of sRGB's or Display P3's primaries (D50)."""
    columns = {
        "srgb": ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)),
        "p3": ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
    }[primaries]
    number = lambda x: struct.pack(">i", round(x * 65536))  # noqa: E731
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags = {b"wtpt": b"XYZ " + bytes(4) + b"".join(map(number, (0.9642, 1, 0.8249)))}
    for letter, column in zip(b"rgb", columns, strict=True):
        tags[bytes([letter]) + b"XYZ"] = b"XYZ " + bytes(4) + b"".join(map(number, column))
        tags[bytes([letter]) + b"TRC"] = curve
    table, data, at = b"", b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", at + len(data), len(value))
        data += value
    head = struct.pack(">I4sI4s4s4s", at + len(data), b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ ").ljust(36, b"\0")
    head = (head + b"acsp").ljust(68, b"\0") + b"".join(map(number, (0.9642, 1, 0.8249)))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_colour_profiles_become_srgb(mode: str) -> None:
    """A picture of linear light: what sRGB's curve makes of it, by hand."""
    colours = np.array([[[200, 40, 40], [10, 128, 250]], [[0, 255, 3], [99, 98, 97]]], np.uint8)
    picture = Image.fromarray(colours).convert(mode)
    linear = np.asarray(picture.convert("RGB")) / 255
    wanted = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    image, notes = shown(picture, icc_profile=matrix_profile(1.0))
    assert abs(image - wanted).max() <= 2 and notes == ["with a colour profile, converted to sRGB"]


def test_profiles_like_srgb_and_broken_ones_leave_pixels_alone() -> None:
    pixels = noise(8, 8)
    same = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile, notes in ((same, []), (b"broken", ["with a colour profile that cannot be used, taken as sRGB"])):
        image, told = shown(Image.fromarray(pixels), icc_profile=profile)
        assert np.array_equal(image, pixels) and told == notes


def test_sixteen_bits_and_floats_are_scaled_by_a_stated_rule(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for kind in ("PNG", "TIFF"):
        assert np.array_equal(shown(Image.fromarray(deep), kind)[0][..., 0], deep >> 8)
    twelve = Image.fromarray(deep >> 4)
    assert "--range" in " ".join(shown(twelve)[1])
    ranged, _ = shown(twelve, view=View(range=(0, 4095)))
    assert abs(ranged[..., 0] - (deep >> 4) / 4095 * 255).max() <= 0.51
    unit = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    assert abs(shown(Image.fromarray(unit), "TIFF")[0][..., 0] - unit * 255).max() <= 0.51
    write_folder(tmp_path / "f", {"1.tif": encoded(Image.fromarray(unit * 9), "TIFF"), "2.png": encoded(noise(8, 8))})
    with pytest.raises(CfgError, match=r"1\.tif: has values from 0 to 9, outside of 0 to 1\. .*--range LOW:HIGH"):
        make(tmp_path / "f", tmp_path, valid=1, skip_damaged=1)
    import tifffile

    colours = np.random.default_rng(0).random((5, 6, 3), dtype=np.float32)
    tifffile.imwrite(out := io.BytesIO(), colours, photometric="rgb")
    assert abs(np.asarray(View().of_file(out.getvalue(), 0, [])) - colours * 255).max() <= 0.51


FRAMES = [Image.fromarray(noise(8, 8, k)) for k in range(3)]
MOVING = {"TIFF": {}, "WEBP": {"lossless": True}, "PNG": {}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}


@pytest.mark.parametrize("kind", MOVING)
def test_frames_are_asked_for(tmp_path: Path, kind: str) -> None:
    data = encoded(FRAMES[0], kind, save_all=True, append_images=FRAMES[1:], **MOVING[kind])
    source = write_folder(tmp_path / "mine", {f"a.{kind.lower()}": data, "b.png": encoded(noise(8, 8, 9))})
    with pytest.raises(CfgError, match=r"a\.\w+: has 3 frames\. Choose: --frames first .*--frames all"):
        make(source, tmp_path, valid=0)
    account, found = account_of(make(source, tmp_path, valid=0, frames="first")), images_of(tmp_path)
    levels = 3 if kind == "AVIF" else 0  # its colours are never quite the same
    assert abs(found[f"a.{kind.lower()}"].astype(int) - noise(8, 8, 0)).max() <= levels and len(found) == 2
    later = [f"a.{kind.lower()}#{k}" for k in (2, 3)]
    assert account["notes"] == {"frames behind the first of their picture, left out": {"count": 2, "first": later}}
    assert (account["seen"], account["taken"]) == (2, 2), "files"
    account, found = account_of(make(source, tmp_path, valid=0, frames="all")), images_of(tmp_path)
    told = "of several frames, each a picture of its own"
    assert account["notes"] == {told: {"count": 1, "first": [f"a.{kind.lower()}"]}}
    assert (account["seen"], account["taken"]) == (4, 4), "frames"
    assert sorted(found) == [f"a.{kind.lower()}#1", f"a.{kind.lower()}#2", f"a.{kind.lower()}#3", "b.png"]
    for k in range(3):
        assert abs(found[f"a.{kind.lower()}#{k + 1}"].astype(int) - noise(8, 8, k)).max() <= levels


def test_enlarged_pictures_are_told(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "mine", {"1.png": encoded(noise(4, 4)), "2.png": encoded(noise(8, 8))})
    notes = account_of(make(source, tmp_path, valid=0))["notes"]
    assert notes == {"enlarged, for they are smaller than --size": {"count": 1, "first": ["1.png"]}}


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", [{}, {"progressive": True}, {"restart_marker_blocks": 8}, {"subsampling": 0}, {"optimize": True}]
)
def test_damaged_jpegs_are_found(how: dict[str, Any]) -> None:
    soft = np.cumsum(np.random.RandomState(1).randint(-4, 5, (96, 96, 3)), 1) + 128
    good = encoded(np.clip(soft, 0, 255).astype(np.uint8), "JPEG", quality=92, **how)
    half = len(good) // 2
    assert np.array_equal(np.asarray(View().of_file(good, 0, [])), np.asarray(Image.open(io.BytesIO(good))))
    for bad in (good[:half] + bytes(40) + good[half + 40 :], good[:half] + b"\xff\xd9", good[:-60] + b"\xff\xd9"):
        with pytest.raises(BadFileError, match="damaged"):
            View().of_file(bad, 0, [])


def test_plain_pictures_are_not_taken_for_damaged() -> None:
    for optimize in (False, True):
        for mode in ("L", "RGB", "CMYK"):
            data = encoded(Image.new(mode, (500, 400)), "JPEG", optimize=optimize)
            assert damage_in(data, Image.open(io.BytesIO(data))) == ""
            View().of_file(data + b"trailing bytes of a camera", 0, [])


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_strict_decoding_gives_pillows_pixels(mode: str) -> None:
    data = encoded(Image.fromarray(noise(50, 61)).convert(mode), "JPEG", quality=85)
    with Image.open(io.BytesIO(data)) as picture:
        assert np.array_equal(strict_jpeg(data, picture), np.asarray(picture))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("is_strict", [True, False])
def test_very_large_jpegs_are_decoded_smaller(mode: str, is_strict: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that they take little memory: nearly the same pixels, with and without libjpeg's warnings, and it is told."""
    smooth = Image.fromarray(noise(50, 63)).resize((1000, 800), Image.Resampling.BICUBIC).convert(mode)
    data, render = encoded(smooth, "JPEG", quality=95), Render((24, 32), 3, "centre", view=View())
    whole, _ = render.shown(data)
    monkeypatch.setattr("data_scripts.viewing.MAX_PIXELS", 1000 * 800 - 1)
    if not is_strict:
        monkeypatch.setitem(sys.modules, "simplejpeg", None)
    image, notes = render.shown(data)
    assert notes[0] == SCALED
    assert abs(image.astype(int) - whole).max() <= 8
    assert abs(image.astype(int) - whole).max() > 0 or mode == "CMYK"  # it was another way
    opened = View().of_file(data, 0, [], least=64)
    assert opened.size == (125, 100)


def test_a_wrong_check_sum_of_a_png_is_damage() -> None:
    data = encoded(noise(64, 64), compress_level=0)
    at = data.index(b"IDAT") + 2000
    with warnings.catch_warnings(), pytest.raises(BadFileError, match="wrong check sum"):
        warnings.simplefilter("ignore")
        View().of_file(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], 0, [])


@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", "jpeg"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_damaged_strips_of_a_tiff_are_found(compression: str, mode: str) -> None:
    """Of several strips, the one in the middle; plain ones are good."""
    for pixels in (noise(300, 300), np.zeros((300, 300, 3), np.uint8)):
        good = encoded(Image.fromarray(pixels).convert(mode), "TIFF", compression=compression)
        View().of_file(good, 0, [])
    good, half = encoded(Image.fromarray(noise(300, 300)).convert(mode), "TIFF", compression=compression), 40_000
    with pytest.raises(BadFileError, match=r"damaged \((wrong check sum|zeros in the middle).* of the strip"):
        View().of_file(good[:half] + bytes(64) + good[half + 64 :], 0, [])


def test_what_is_no_picture_is_told() -> None:
    for data, told in ((b"", "is empty"), (b"<html>", "no picture")):
        with pytest.raises(BadFileError, match=told):
            View().of_file(data, 0, [])


def test_a_smaller_copy_before_the_picture_is_passed_over() -> None:
    """A scanner's thumbnail is the first page of its TIFF."""
    import tifffile

    out = io.BytesIO()
    with tifffile.TiffWriter(out) as file:
        file.write(noise(8, 8, 1), photometric="rgb", subfiletype=1)
        file.write(noise(64, 64, 2), photometric="rgb")
    assert np.array_equal(np.asarray(View().of_file(out.getvalue(), 0, [])), noise(64, 64, 2))


def test_a_transparent_level_of_sixteen_bits_counts() -> None:
    levels = np.array([[5000, 60000], [60000, 5001]], np.uint16)
    image, notes = shown(Image.fromarray(levels), transparency=5000)
    assert image[..., 0].tolist() == [[255, 60000 >> 8], [60000 >> 8, 5001 >> 8]]
    assert notes[-1] == "with transparency, laid on the background"


@pytest.mark.parametrize(("code", "is_told"), [((1, 13, 0, 1), False), ((12, 13, 0, 1), True), ((9, 16, 0, 1), True)])
def test_colours_named_by_a_code_are_told(code: tuple[int, ...], is_told: bool) -> None:
    """PNG's cICP: sRGB, Display P3, and BT.2020 of a high dynamic range."""
    data, chunk = encoded(noise(4, 4)), b"cICP" + bytes(code)
    data = data[:33] + struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    notes: list[str] = []
    View().of_file(data, 0, notes)
    assert bool(notes) == is_told and all("by a code" in note for note in notes)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_zeros_in_coded_pixels_are_damage(kind: str) -> None:
    """As a disk or a cloud leaves them; a plain picture has none."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    good = encoded(noise(160, 160), kind, quality=90)
    for plain in (good, encoded(Image.new("RGBA", (400, 300)), kind)):
        View().of_file(plain, 0, [])
    half = len(good) // 2
    with pytest.raises(BadFileError, match=r"damaged \(zeros in the middle"):
        View().of_file(good[:half] + bytes(512) + good[half + 512 :], 0, [])
