"""From the bytes of a picture to the pixels of a dump: against slices and sums by hand, torchvision, and Pillow."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from upstream_pictures import decoded, encoded

from data_scripts import render
from data_scripts.render import Render
from data_scripts.spans import BadFileError
from lvae_torch.data.pictures import PictureFit


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, channels), dtype=np.uint8)


def triangle(size: int, to: int) -> np.ndarray:
    """The weights of bilinear shrinking, (to, size): triangles as wide as a new pixel on either side of its middle."""
    scale = size / to
    middles, places = (np.arange(to)[:, None] + 0.5) * scale, np.arange(size)[None] + 0.5
    weights = np.clip(1 - abs(places - middles) / scale, 0, None)
    return weights / weights.sum(axis=1, keepdims=True)


def shrunk(image: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = triangle(image.shape[0], height), triangle(image.shape[1], width)
    return np.einsum("ih,jw,hwc->ijc", rows, columns, image.astype(float))


# --- crop and resize --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [(15, 35, 163, 183), (15, 40, 163, 188), (0, 0, 1, 2), (3, 4, 178, 218)])
def test_a_box_is_a_slice(box: tuple[int, int, int, int]) -> None:
    image, (left, top, right, bottom) = noise(218, 178), box
    crop = Render((bottom - top, right - left), box=box)(encoded(image))
    assert np.array_equal(crop, image[top:bottom, left:right])


@pytest.mark.parametrize(("height", "width", "to"), [(148, 148, (64, 64)), (100, 70, (17, 33)), (64, 64, (63, 64))])
def test_bilinear_shrinking_looks_at_every_pixel(height: int, width: int, to: tuple[int, int]) -> None:
    image = noise(height, width)
    small = Render(to)(encoded(image))
    assert abs(small - shrunk(image, *to)).max() < 1.1  # Pillow rounds after each axis


def test_interpolation_without_that_gives_other_pixels() -> None:
    """As torch's does by default: a model would be judged on other, rougher images."""
    image = noise(148, 148)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    rough, fine = (
        torch.nn.functional.interpolate(tensor, (64, 64), mode="bilinear", antialias=antialias)[0].permute(1, 2, 0)
        for antialias in (False, True)
    )
    small = Render((64, 64))(encoded(image)).astype(float)
    assert abs(small - fine.numpy()).max() < 1.1
    assert abs(small - rough.numpy()).mean() > 10


@pytest.mark.parametrize("how", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_the_filter_may_be_chosen(how: Any) -> None:
    image = noise(40, 30)
    wanted = Image.fromarray(image).resize((12, 16), Image.Resampling[how.upper()])
    assert np.array_equal(Render((16, 12), resample=how)(encoded(image)), np.asarray(wanted))


def test_what_has_the_right_size_stays_as_it_is() -> None:
    image = noise(20, 30)
    assert np.array_equal(Render((20, 30))(encoded(image)), image)
    assert np.array_equal(Render((20, 30), crop="centre", upright=True)(encoded(image)), image)


@pytest.mark.parametrize(("height", "width"), [(20, 31), (31, 20), (20, 33), (33, 20), (178, 218), (20, 20)])
def test_the_centre_is_torchvisions(height: int, width: int) -> None:
    from torchvision.transforms import CenterCrop

    image, side = noise(height, width), min(height, width)
    wanted = np.asarray(CenterCrop(side)(Image.fromarray(image)))
    assert np.array_equal(Render((side, side), crop="centre")(encoded(image)), wanted)


def test_the_addtt_crop_is_the_centre() -> None:
    from torchvision.transforms import CenterCrop

    image = noise(218, 178)
    wanted = np.asarray(CenterCrop(148)(Image.fromarray(image)))
    assert np.array_equal(Render((148, 148), box=(15, 35, 163, 183))(encoded(image)), wanted)


@pytest.mark.parametrize(("height", "width", "to", "kept"), [
    (100, 60, (20, 10), (slice(None), slice(5, 55))),
    (60, 100, (30, 30), (slice(None), slice(20, 80))),
    (90, 50, (16, 16), (slice(20, 70), slice(None))),
])  # fmt: skip
def test_the_centre_has_the_proportions_asked_for(
    height: int, width: int, to: tuple[int, int], kept: tuple[slice, slice]
) -> None:
    image = noise(height, width)
    assert abs(Render(to, crop="centre")(encoded(image)) - shrunk(image[kept], *to)).max() < 1.1


@pytest.mark.parametrize("turned", [False, True])
def test_a_crop_has_at_least_a_pixel(turned: bool) -> None:
    """Of a line one pixel high, a third of one would be the right proportion."""
    line = np.full((300, 1, 3) if turned else (1, 300, 3), (200, 30, 90), np.uint8)
    size = (32, 96) if turned else (96, 32)
    wanted = np.broadcast_to(np.array((200, 30, 90), np.uint8), (*size, 3))
    data = encoded(Image.fromarray(line))
    assert np.array_equal(Render(size, crop="centre")(data), wanted)
    assert np.array_equal(PictureFit((3, *size))(data)[0], wanted)


def test_rendering_is_light_to_import() -> None:
    """It is imported by every process that decodes."""
    heavy = {"torch", "pydantic", "PIL", "scipy", "tifffile"}
    script = f"import sys, data_scripts.render; print(sorted({heavy} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# --- colours, JPEG, ink, the camera's turn ----------------------------------------------------------------------------


def test_a_pass_through_jpeg_is_pillows_of_quality_75() -> None:
    image = noise(50, 60)
    through = Render((50, 60), jpeg_before_resize=True)(encoded(image))
    wanted = decoded(encoded(image, "JPEG", quality=75, subsampling="4:2:0"))
    assert np.array_equal(through, wanted)
    assert abs(through.astype(int) - image).mean() > 5
    cropped = Render((20, 20), box=(10, 8, 50, 48), jpeg_before_resize=True)(encoded(image))
    again = decoded(encoded(image[8:48, 10:50], "JPEG", quality=75))
    assert np.array_equal(cropped, Render((20, 20))(encoded(again))), "first the crop, then JPEG, then the size"


def test_ink_is_one() -> None:
    drawing = np.array([[0, 255, 255], [255, 0, 127], [128, 0, 255]], np.uint8)
    wanted = [[1, 0, 0], [0, 1, 1], [0, 1, 0]]
    assert Render((3, 3), 1, ink=True)(encoded(drawing))[..., 0].tolist() == wanted
    one_bit = Image.fromarray(drawing).point(lambda grey: 255 if grey > 127 else 0).convert("1")
    assert Render((3, 3), 1, ink=True)(encoded(one_bit))[..., 0].tolist() == wanted


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "RGB"])
def test_pictures_of_any_8_bit_mode_are_read(mode: str) -> None:
    picture = Image.fromarray(noise(12, 14)).convert(mode)
    data = encoded(picture, "TIFF" if mode == "CMYK" else "PNG")
    assert np.array_equal(Render((12, 14))(data), np.asarray(picture.convert("RGB")))
    assert np.array_equal(Render((12, 14), 1)(data)[..., 0], np.asarray(picture.convert("L")))


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("code", TURNS)
def test_pictures_are_turned_as_the_camera_says_where_asked(code: int) -> None:
    image, exif = noise(12, 14), Image.Exif()
    exif[0x0112] = code
    data, wanted = encoded(image, exif=exif.tobytes()), TURNS[code](image)
    assert np.array_equal(Render(wanted.shape[:2], upright=True)(data), wanted)
    assert np.array_equal(Render((12, 14))(data), image)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_pixels_of_more_than_8_bits_are_refused(mode: str) -> None:
    data = encoded(Image.new(mode, (9, 9)), "TIFF")
    with pytest.raises(BadFileError, match=rf"pixels of kind {mode}; only 8 bits"):
        Render((9, 9), 1)(data)


def test_another_size_is_refused_where_one_is_needed() -> None:
    with pytest.raises(BadFileError, match="20 x 30 pixels, needs 30 x 20"):
        Render((4, 4), needs=(30, 20))(encoded(noise(20, 30)))
    with pytest.raises(BadFileError, match="20 x 30 pixels, too few for the crop"):
        Render((4, 4), box=(0, 0, 21, 21))(encoded(noise(20, 30)))


def test_decompression_bombs_are_refused_before_they_are_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "MAX_PIXELS", 100)
    with pytest.raises(BadFileError, match="11 x 10 pixels are too many"):
        Render((4, 4))(encoded(noise(10, 11)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for side in (12, 20):  # Pillow warns, or refuses what is twice too large
        with pytest.raises(BadFileError, match="too large"):
            Render((4, 4))(encoded(noise(side, side)))


KINDS = {"PNG": {}, "JPEG": {"quality": 90}, "WEBP": {}, "BMP": {}, "TIFF": {"compression": "tiff_lzw"}}


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_off_picture_is_refused(kind: str) -> None:
    data = encoded(noise(24, 30), kind, **KINDS[kind])
    for length in range(0, len(data) - 20, max(1, len(data) // 60)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(BadFileError):
                Render((8, 8), upright=True)(data[:length])


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_byte_never_ends_the_program(kind: str) -> None:
    """Whether Pillow notices or not: a picture, or what is wrong with it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(noise(9, 9), kind, **KINDS[kind], **({"exif": exif.tobytes()} if kind != "BMP" else {}))
    for k in range(0, len(data)):
        for change in (0x55, 0xFF):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    image = Render((8, 8), upright=True)(data[:k] + bytes([data[k] ^ change]) + data[k + 1 :])
                except BadFileError:
                    continue
            assert (image.shape, image.dtype) == ((8, 8, 3), np.uint8)


@pytest.mark.parametrize("data", [b"", b"x", b"\n<html></html>", b"GIF89a", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(BadFileError):
        Render((4, 4))(data)
