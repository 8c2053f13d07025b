"""Pictures of any size as tiles, and the commands."""

import json
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from compression_cases import CASES, Array
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lvae_torch.compression.compressor import Compressor, Contents
from lvae_torch.compression.index import Entry, is_safe, packed_index, read_index
from lvae_torch.compression.outputs import assembled, numbered, write_dump, write_pictures
from lvae_torch.compression.pictures import Levels, PictureFiles, cut, joined
from lvae_torch.compression.plain import packed, unpacked
from lvae_torch.data.dump import Dump
from lvae_torch.errors import CfgError, DataError

TILE = (3, 8, 8)


def write(path: Path, height: int, width: int, mode: str = "RGB", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (height, width, 3) if mode == "RGB" else (height, width), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return values


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(1, 30))
def test_tiles_join_to_what_was_cut(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    entry = Entry("a.png", height, width)
    tiles = cut(pixels, TILE)
    assert tiles.shape == (entry.n_tiles(TILE), *TILE)
    assert np.array_equal(joined(tiles, entry, TILE), pixels)


@pytest.mark.parametrize("packing", ["folder", "zip"])
def test_pictures_of_any_size_come_back(tmp_path: Path, packing: str) -> None:
    given_folder, case = tmp_path / "given", CASES["spatial mixture"]
    wanted = {
        "a.png": write(given_folder / "a.png", 8, 8, seed=1),
        "b.png": write(given_folder / "b.png", 19, 5, seed=2),
        "sub/c.bmp.png": write(given_folder / "sub" / "c.bmp", 7, 33, seed=3),
    }
    source = given_folder
    if packing == "zip":
        source = tmp_path / "given.zip"
        with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(given_folder.rglob("*.*")):
                archive.write(file, file.relative_to(given_folder))
    compressor = Compressor(case.model(), 256)
    files = PictureFiles(source, case.shape, 256)
    compressor.compress(files, tmp_path / "a.lvz", Contents("given", "", packed_index(files.entries)), batch=4)
    with compressor.opened(tmp_path / "a.lvz") as (archive_, groups):
        write_pictures(tmp_path / "out", groups, read_index(archive_.index), case.shape, 256)
    found = {p.relative_to(tmp_path / "out").as_posix(): p for p in (tmp_path / "out").rglob("*.png")}
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        assert np.array_equal(np.asarray(Image.open(found[name])), values)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour_come_back_as_they_were(tmp_path: Path, channels: int) -> None:
    """Whatever the model's channels: grey, black and white, colours that are all grey; odd names; a palette as RGB."""
    grey, tile = np.random.default_rng(0).integers(0, 256, (11, 9), np.uint8), (channels, 8, 8)
    given_pictures = {
        "a b'ü.png": Image.fromarray(grey),
        "-x.png": Image.fromarray(grey > 127),
        "sub.dir/.hidden.png": Image.fromarray(np.stack([grey] * 3, axis=2)),
        "opaque.png": Image.fromarray(np.stack([grey, np.full_like(grey, 255)], axis=2)),
    }
    for name, image in given_pictures.items():
        (tmp_path / "given" / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "given" / name)
    files = PictureFiles(tmp_path / "given", tile, 256)
    groups = (files.levels(i, 1) for i in range(len(files)))
    assert write_pictures(tmp_path / "out", groups, read_index(packed_index(files.entries)), tile, 256) == 4
    for name, image in given_pictures.items():
        found = Image.open(tmp_path / "out" / name)
        wanted = image.convert("L") if image.mode == "LA" else image
        assert found.mode == wanted.mode, name
        assert np.array_equal(np.asarray(found), np.asarray(wanted)), name


def test_images_become_a_dump(tmp_path: Path) -> None:
    case = CASES["very deep 5 bits exact"]
    levels, compressor = case.levels(9), Compressor(case.model(), 32)
    compressor.compress(Array(levels), tmp_path / "a.lvz", Contents("a test"), batch=4)
    with compressor.opened(tmp_path / "a.lvz") as (_, groups):
        assert write_dump(tmp_path / "dumps", "again", "test", groups, case.shape, 32) == 9
    split = Dump.open(tmp_path / "dumps", "again").split("test")
    assert np.array_equal(split.gather(np.arange(9)).numpy().transpose(0, 3, 1, 2), levels)


@pytest.mark.parametrize(("shape", "n_levels"), [((2, 8, 8), 256), ((1, 8, 8), 512), ((1, 8, 8), 3)])
def test_images_that_make_no_pictures_are_offered_as_a_dump(
    tmp_path: Path, shape: tuple[int, int, int], n_levels: int
) -> None:
    with pytest.raises(DataError, match=f"of {n_levels} levels make no PNG files; add --dump"):
        write_pictures(tmp_path / "out", [], numbered(1, shape), shape, n_levels)
    assert not (tmp_path / "out").exists()


def test_nothing_is_put_in_place_before_all_is_right(tmp_path: Path) -> None:
    def groups():  # type: ignore[no-untyped-def]
        yield np.zeros((2, *TILE), np.int64)
        raise DataError("the digest of the images is another.")

    with pytest.raises(DataError, match="digest"):
        write_pictures(tmp_path / "out", groups(), numbered(3, TILE), TILE, 256)
    with pytest.raises(DataError, match="digest"):
        write_dump(tmp_path / "dumps", "again", "test", groups(), TILE, 256)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "dumps" / "again").exists()
    assert not list(tmp_path.glob(".out*"))


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="there already"):
        write_pictures(tmp_path / "out", iter([]), iter([]), TILE, 256)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "name",
    ["../a.png", "/a.png", "a/../b.png", "a//b.png", "a.exe", "", ".png/../x.png", "a\\b.png", "a\x00.png", "c:a.png",
     "x" * 300 + ".png", "a/./b.png", "a\n.png", "a\ud800.png"],
)  # fmt: skip
def test_names_that_lead_out_are_refused(name: str) -> None:
    assert not is_safe(name)
    line = json.dumps([name, 8, 8, "L"]) + "\n"
    with pytest.raises(DataError, match="list of pictures"):
        list(read_index(zlib.compress(line.encode())))


@pytest.mark.parametrize(
    "text",
    ['["a.png", 0, 8, "L"]\n', '["a.png", 8]\n', '["a.png", 1e9, 8, "L"]\n', '["a.png", 100000, 100000, "L"]\n',
     '["a.png", true, 8, "L"]\n', '["a.png", 8, 8, "L"]', '["a.png", 8, 8, "P"]\n', '["a.png", 8, 8, {}]\n',
     "[]\n", "{}\n", "x\n", "[" * 5000 + "\n", "x" * 10**7],
)  # fmt: skip
def test_damaged_lists_of_pictures_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="list of pictures"):
        list(read_index(zlib.compress(text.encode())))
    for cut_off in (b"", b"\x00\x01", zlib.compress(b'["a.png", 8, 8, "L"]\n')[:-6]):
        with pytest.raises(DataError, match="list of pictures"):
            list(read_index(cut_off))


def test_too_many_or_too_few_tiles_are_refused() -> None:
    tiles = [np.zeros((3, *TILE), np.int64)]
    for sizes in ((8, 8), (8, 40)):
        with pytest.raises(DataError, match="tiles than the pictures have"):
            list(assembled(tiles, iter([Entry("a.png", *sizes)]), TILE))


def test_pictures_that_would_lose_something_are_named(tmp_path: Path) -> None:
    def refused(match: str, n_levels: int = 256, tile: tuple[int, int, int] = TILE) -> None:
        with pytest.raises((DataError, CfgError), match=match):
            _ = PictureFiles(tmp_path, tile, n_levels).entries
        for file in tmp_path.iterdir():
            file.unlink()

    refused("no pictures there")
    Image.fromarray(np.full((8, 8, 4), 7, np.uint8)).save(tmp_path / "a.png")
    refused("a.png: is transparent")
    write(tmp_path / "a.png", 8, 8)
    refused("a.png: has colours", tile=(1, 8, 8))
    write(tmp_path / "a.png", 8, 8)
    refused("values between the model's 32 levels", n_levels=32)
    write(tmp_path / "a.png", 8, 8)
    refused("have 2, 4, 8 .. 256 levels", n_levels=3)
    (tmp_path / "a.png").write_bytes(b"no picture")
    refused("a.png: no picture that can be read")
    Image.fromarray(np.zeros((8, 8), np.int32)).save(tmp_path / "a.tif")
    refused("a.tif: pixels of kind I")
    write(tmp_path / "a.bmp", 8, 8)
    write(tmp_path / "a.bmp.png", 8, 8)
    refused("under one name")


@pytest.mark.parametrize("n_levels", [2, 4, 32, 256])
def test_levels_and_values_translate(n_levels: int) -> None:
    levels = Levels(n_levels)
    every = np.arange(n_levels)
    values = levels.values(every)
    assert np.array_equal(levels.of(values), every)
    assert values.min() == 0 and (n_levels != 2 or values.max() == 255)
    if n_levels < 256:
        assert levels.of(np.array([100 if n_levels == 2 else 1], np.uint8)) is None


@pytest.mark.parametrize("n_levels", [2, 3, 256, 1000])
def test_the_plain_code_is_reversible_and_bounded(n_levels: int) -> None:
    rng = np.random.default_rng(0)
    flat, noise = np.zeros((2, 3, 8, 8), np.int64), rng.integers(0, n_levels, (2, 3, 8, 8))
    ramp = np.add.outer(np.arange(8), np.arange(8)) % n_levels + np.zeros((2, 3, 1, 1), np.int64)
    for levels in (flat, noise, ramp):
        code = packed(levels, n_levels)
        assert np.array_equal(unpacked(code, levels.shape, n_levels), levels)
        with pytest.raises(DataError, match="without a model"):
            unpacked(code, (3, 3, 8, 8), n_levels)
        with pytest.raises(DataError, match="without a model"):
            unpacked(bytes([9]) + code[1:], levels.shape, n_levels)
    bomb = b"\x00" + zlib.compress(bytes(10**7))
    for wrong in (b"", b"\x00", b"\x00abc", bomb):
        with pytest.raises(DataError, match="without a model"):
            unpacked(wrong, flat.shape, n_levels)
    assert torch.is_grad_enabled()
