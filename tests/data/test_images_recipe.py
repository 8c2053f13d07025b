"""``python -m data_scripts images``: anyone's pictures, in any folder or archive; and CelebA's list of pictures."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import upstream_pictures
from making import bytes_of, contents
from PIL import Image
from upstream_pictures import encoded, write_tar, write_zip

import data_scripts
from data_scripts import spans
from data_scripts.commands import command
from data_scripts.splits import choose
from lvae_torch.data.dump import Dump
from lvae_torch.errors import CfgError, DataError

pytestmark = pytest.mark.usefixtures("at_once")


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def some(names: list[str]) -> dict[str, bytes]:
    return {name: encoded(noise(12, 10, k)) for k, name in enumerate(names)}


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def make(source: Path, dumps: Path, **options: Any) -> Dump:
    data_scripts.make("images", dumps, source=str(source), **{"name": "x", "size": "8", "replace": True, **options})
    return Dump.open(dumps, "x")


# --- splits -----------------------------------------------------------------------------------------------------------


def test_folders_are_splits(tmp_path: Path) -> None:
    files = some(["mine/Training/cats/10.png", "mine/Training/dogs/9.png", "mine/Training/cats/2.png",
                  "mine/val/1.png", "mine/test/a.png", "mine/test/b.png"])  # fmt: skip
    make(write_zip(tmp_path / "mine.zip", {"mine/readme.txt": b"", **files}), tmp_path)
    names = {split: part.names for split, part in contents(tmp_path, "x").items()}
    assert names == {
        "train": ["mine/Training/cats/2.png", "mine/Training/cats/10.png", "mine/Training/dogs/9.png"],
        "valid": ["mine/val/1.png"],
        "test": ["mine/test/a.png", "mine/test/b.png"],
    }
    assert Dump.open(tmp_path, "x").provenance["splits"] == "folders"


@pytest.mark.parametrize("names", [["1.png"], ["train.png"], ["bullet_train/1.png", "cat/2.png"], ["a/b/train.jpg"]])
def test_other_folders_are_not(names: list[str]) -> None:
    assert choose(names, "auto", "here") is None


def test_a_folder_a_zip_and_a_tar_make_the_same(tmp_path: Path) -> None:
    files = some([f"{k}.png" for k in range(1, 24)])
    sources = [
        write_folder(tmp_path / "mine", files),
        write_zip(tmp_path / "mine.zip", files),
        write_tar(tmp_path / "mine.tar", files),
    ]
    made = []
    for k, source in enumerate(sources):
        make(source, tmp_path / str(k))
        made.append(contents(tmp_path / str(k), "x"))
    order = np.random.RandomState(0).permutation(23)  # one in ten
    valid = [f"{k}.png" for k in range(1, 24) if k - 1 in order[:2]]
    train = [f"{k}.png" for k in range(1, 24) if k - 1 not in order[:2]]
    for found in made:
        assert (found["train"].names, found["valid"].names) == (train, valid)
        assert all(np.array_equal(found[split].images, made[0][split].images) for split in found)


# --- what becomes of a picture ----------------------------------------------------------------------------------------


MODES = ("L", "RGBA", "P", "1")


def test_pictures_of_all_modes_and_shapes_go_together(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = noise(20, 30)
    pictures = {
        "1.jpg": encoded(image, "JPEG", exif=exif.tobytes()),  # stands upright: 30 x 20
        **{f"{k}.png": encoded(Image.fromarray(image).convert(mode)) for k, mode in zip("2345", MODES, strict=True)},
        "6.tif": encoded(Image.fromarray(image).convert("CMYK"), "TIFF"),
        "7.webp": encoded(noise(64, 9), "WEBP", lossless=True),
        "8.bmp": encoded(noise(8, 8), "BMP"),
    }  # fmt: skip
    dump = make(write_folder(tmp_path / "mine", pictures), tmp_path, valid=1, size="10x8")
    assert dump.layout.hwc == (10, 8, 3)
    found = contents(tmp_path, "x")
    images = dict(zip(found["train"].names + found["valid"].names,
                      [*found["train"].images, *found["valid"].images], strict=True))  # fmt: skip
    assert len(images) == 8
    upright = Image.fromarray(upstream_pictures.decoded(pictures["1.jpg"])).transpose(Image.Transpose.ROTATE_270)
    wanted = upright.crop((0, 2, 20, 27)).resize((8, 10), Image.Resampling.BILINEAR)  # the middle of 30 x 20
    assert np.array_equal(images["1.jpg"], np.asarray(wanted))
    wanted = Image.fromarray(image).convert("L").crop((7, 0, 23, 20)).resize((8, 10), Image.Resampling.BILINEAR)
    assert np.array_equal(images["2.png"], np.repeat(np.asarray(wanted)[..., None], 3, axis=2))


@pytest.mark.parametrize("size", [12, 40, 52, 56, 64, 108, 124])
def test_bmps_of_all_versions_are_read(tmp_path: Path, size: int) -> None:
    """As Windows and OS/2 write them, by hand: 24 bits, the lowest row first, blue before green and red."""
    image = noise(8, 8)
    head = struct.pack("<IHHHH", 12, 8, 8, 1, 24) if size == 12 else struct.pack("<IiiHH", size, 8, 8, 1, 24)
    pixels = image[::-1, :, ::-1].tobytes()
    start = struct.pack("<2sIII", b"BM", 14 + size + len(pixels), 0, 14 + size)
    make(write_folder(tmp_path / "mine", {"1.bmp": start + head.ljust(size, b"\0") + pixels}), tmp_path, valid=0)
    assert np.array_equal(contents(tmp_path, "x")["train"].images[0], image)


def test_grey_squashed_and_filtered(tmp_path: Path) -> None:
    image = noise(20, 30)
    source = write_folder(tmp_path / "mine", {"1.png": encoded(image), "2.png": encoded(image)})
    dump = make(source, tmp_path, grey=True, crop="none", resample="lanczos", size="9x7")
    assert (dump.layout.hwc, dump.n_levels, dump.layout.encoding) == ((9, 7, 1), 256, "raw")
    wanted = Image.fromarray(image).convert("L").resize((7, 9), Image.Resampling.LANCZOS)
    assert np.array_equal(contents(tmp_path, "x")["train"].images[0, ..., 0], np.asarray(wanted))
    assert dump.provenance["resize"] == "Pillow lanczos, anti-aliased"


@pytest.mark.parametrize(
    ("options", "encoding"),
    [
        ({"size": "512"}, "png"),
        ({"size": "511"}, "raw"),
        ({"encoding": "png"}, "png"),
        ({"size": "512", "encoding": "raw"}, "raw"),
    ],
)
def test_large_images_are_kept_as_png(tmp_path: Path, options: dict[str, Any], encoding: str) -> None:
    dump = make(write_folder(tmp_path / "mine", some(["1.png", "2.png"])), tmp_path, crop="none", **options)
    assert dump.layout.encoding == encoding
    side = int(options.get("size", 8))
    picture = Image.fromarray(noise(12, 10, 0 if dump.names("train") == ["1.png"] else 1))
    wanted = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
    assert np.array_equal(contents(tmp_path, "x")["train"].images[0], wanted)


def test_bombs_among_pictures_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "MAX_MEMBER", 20_000)
    bombs = {"train/3.png": encoded(noise(20, 20)), "train/4.png": bytes(20_001)}
    source = write_zip(tmp_path / "mine.zip", {**some(["train/1.png", "valid/2.png"]), **bombs})
    with pytest.raises(DataError, match=r"3\.png: 20 x 20 pixels are too many.*\n  .*4\.png: .*more than 20,000 bytes"):
        make(source, tmp_path, max_pixels=200)
    assert make(source, tmp_path, max_pixels=200, skip_damaged=2).counts == {"train": 1, "valid": 1}


# --- what is asked for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["0", "00", "-4", "64x", "x64", "64x0", "64 x 64", "sixty", "", "123456", "8x00"])
def test_sizes_that_cannot_be_are_told(tmp_path: Path, size: str) -> None:
    with pytest.raises(CfgError, match="--size is"):
        make(write_folder(tmp_path / "mine", some(["1.png", "2.png"])), tmp_path, size=size)


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"name": ""}, CfgError, "--name NAME"),
        ({"source": None}, CfgError, "--source FOLDER"),
        ({"source": "nowhere"}, DataError, "nowhere: no such folder or file"),
        ({"jobs": -1}, CfgError, "--jobs is -1"),
        ({"valid": 2}, CfgError, "--valid is 2"),
        ({"skip_damaged": -1}, CfgError, "--skip-damaged is -1"),
    ],
)
def test_what_cannot_be_made_is_told(tmp_path: Path, options: dict[str, Any], kind: type, told: str) -> None:
    source = write_folder(tmp_path / "mine", some(["1.png", "2.png"]))
    with pytest.raises(kind, match=told):
        data_scripts.make("images", tmp_path, **{"source": str(source), "name": "x", **options})


def test_the_command_makes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_folder(tmp_path / "mine", some(["train/1.png", "valid/2.png"]))
    command(["images", "--source", str(source), "--name", "mine", "--size", "16", "--dumps", str(tmp_path / "dumps")])
    *account, last = capsys.readouterr().out.splitlines()
    assert "train 1, valid 1; images (3, 16, 16)" in last, "the sum of it stands where one looks"
    assert any("all names:" in line for line in account)


# --- CelebA's list ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace(b"000003.jpg 0\r\n", b""), "has no line for 1 pictures, the first 000003.jpg"),
        (lambda text: text + b"000013.jpg 2\r\n", "lacks 1 of the 13 pictures in .*, the first 000013.jpg"),
        (lambda text: text.replace(b"000003.jpg 0", b"000003.jpg 3"), "line 3 is '000003.jpg 3', needs"),
        (lambda text: text.replace(b"000003.jpg 0", b"000003.jpg"), "line 3 is '000003.jpg', needs"),
        (lambda text: text.replace(b"000003.jpg 0", b"000003.jpg,0"), "line 3 is '000003.jpg,0', needs"),
        (lambda text: text.replace(b"000003.jpg 0", b"000003.jpg 0 0"), "line 3 is '000003.jpg 0 0', needs"),
        (lambda text: text + b"000003.jpg 1\r\n", "000003.jpg .*twice"),
        (lambda text: b"\xff\xfe" + text, "not a text of file names"),
        (lambda text: b"", "has no line for 12 pictures"),
    ],
)
def test_a_list_that_does_not_fit_the_pictures_is_told(
    small_mirror: Callable[..., Any], tmp_path: Path, change: Callable[[bytes], bytes], told: str
) -> None:
    folder, _ = small_mirror(upstream_pictures.celeba)
    text = (folder / "list_eval_partition.txt").read_bytes()
    (tmp_path / "list_eval_partition.txt").write_bytes(change(text))
    (tmp_path / "img_align_celeba.zip").symlink_to(folder / "img_align_celeba.zip")
    with pytest.raises(DataError, match=rf"(list_eval_partition\.txt|img_align_celeba\.zip): .*{told}"):
        data_scripts.make("celeba64", tmp_path / "dumps", source=str(tmp_path))


def test_lines_may_end_as_on_any_system(small_mirror: Callable[..., Any], tmp_path: Path) -> None:
    folder, _ = small_mirror(upstream_pictures.celeba)
    (tmp_path / "img_align_celeba.zip").symlink_to(folder / "img_align_celeba.zip")
    text = (folder / "list_eval_partition.txt").read_bytes()
    (tmp_path / "list_eval_partition.txt").write_bytes(text.replace(b"\r\n", b"\n") + b"\n")
    for name, source in (("windows", folder), ("unix", tmp_path)):
        data_scripts.make("celeba64", tmp_path, source=str(source), name=name)
    windows, unix = (bytes_of(tmp_path, name) for name in ("windows", "unix"))
    for files in (windows, unix):  # but for this, which tells the list's checksum
        del files["dataset.json"]
    assert windows == unix
