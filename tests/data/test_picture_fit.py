"""A picture of any size becomes an image as the pictures of a dump did."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import upstream_pictures
from explore_cases import png
from making import contents
from PIL import Image
from test_images_recipe import make, write_folder
from upstream_pictures import encoded

import data_scripts
from lvae_torch.data.dump import Dump
from lvae_torch.data.pictures import PictureFit
from lvae_torch.errors import DataError

pytestmark = pytest.mark.usefixtures("at_once")


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


@pytest.mark.parametrize("without", ["ink", "pixels"])
def test_a_drawing_in_ink_is_what_it_is_in_the_dump(
    small_mirror: Callable[..., Any], tmp_path: Path, without: str
) -> None:
    """Also beside a dump that was made before ``ink`` was written down."""
    folder, _ = small_mirror(upstream_pictures.omniglot_full)
    data_scripts.make("omniglot_full", tmp_path, mirror=str(folder))
    provenance = dict(Dump.open(tmp_path, "omniglot_full").provenance)
    del provenance[without]
    fit = PictureFit.of((1, 105, 105), provenance)
    train = contents(tmp_path, "omniglot_full")["train"]
    with zipfile.ZipFile(folder / "images_background.zip") as archive:
        for name, image in zip(train.names, train.images, strict=True):
            pixels, told = fit(archive.read(name))
            assert np.array_equal(pixels, image * 255) and "dark made bright" in told


DEEP = np.array([[1000, 3000], [0, 4095]], np.uint16)


@pytest.mark.parametrize(("view", "wanted"), [
    ({}, [[1000 >> 8, 3000 >> 8], [0, 4095 >> 8]]),
    ({"range": "0:4095"}, [[62, 187], [0, 255]]),
])  # fmt: skip
def test_deep_pixels_are_what_they_are_in_the_dump(tmp_path: Path, view: dict[str, str], wanted: list[Any]) -> None:
    """By hand; also with a transparent level, and turned by the camera."""
    data = encoded(Image.fromarray(DEEP))
    dump = make(write_folder(tmp_path / "mine", {"1.png": data}), tmp_path, valid=0, size="2", grey=True, **view)
    assert contents(tmp_path, "x")["train"].images[0, ..., 0].tolist() == wanted
    fit = PictureFit.of((1, 2, 2), dump.provenance)
    assert fit(data)[0][..., 0].tolist() == wanted
    clear = encoded(Image.fromarray(DEEP), transparency=1000)
    assert fit(clear)[0][0, :, 0].tolist() == [255, wanted[0][1]]
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = encoded(Image.fromarray(DEEP), exif=exif.tobytes())
    assert fit(turned)[0][::-1, ::-1, 0].tolist() == wanted


def test_deep_pixels_without_a_dump() -> None:
    fit = PictureFit((1, 2, 2))
    assert fit(encoded(Image.fromarray(DEEP)))[0][..., 0].tolist() == [[3, 11], [0, 15]]
    floats = np.array([[0, 0.25], [0.5, 1]], np.float32)
    assert fit(encoded(Image.fromarray(floats), "TIFF"))[0][..., 0].tolist() == [[0, 64], [128, 255]]
    for pixels, told in ((floats * 9, "has values from 0 to 9, outside of 0 to 1"), (DEEP.astype(np.int32), "int32")):
        with pytest.raises(DataError, match=f"a.tif: .*{told}.* Save it with 8 bits"):
            fit(encoded(Image.fromarray(pixels), "TIFF"), "a.tif")


def test_colours_of_16_bits_are_refused_where_the_dump_has_a_range() -> None:
    """Pillow reads the upper 8 bits alone, which are right where the dump has those too."""
    import tifffile

    tifffile.imwrite(out := io.BytesIO(), np.full((2, 2, 3), 3000, np.uint16), photometric="rgb")
    assert PictureFit.of((3, 2, 2), {"range": "upper 8 bits"})(out.getvalue())[0].tolist() == [[[11] * 3] * 2] * 2
    with pytest.raises(DataError, match="16 bits a colour, of which 8 are read, not the values from 0 to 4095"):
        PictureFit.of((3, 2, 2), {"range": [0, 4095.0]})(out.getvalue())
