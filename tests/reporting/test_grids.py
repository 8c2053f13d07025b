"""Grids of images and tables of what was reported."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_reporting import GRID, constant, full_disk

from lvae_torch.errors import DataError
from lvae_torch.reporting.grids import image_grid, in_colour, pair_grid, save_png, to_uint8
from lvae_torch.reporting.history import History
from lvae_torch.reporting.jsonl import JsonlReporter


def tile(grid: np.ndarray, row: int, column: int, size: int = 60) -> np.ndarray:
    y, x = 2 + row * (size + 2), 2 + column * (size + 2)
    return grid[y : y + size, x : x + size]


def test_images_stand_row_by_row_between_lines() -> None:
    grid = image_grid(constant(10, 20, 30, 40, 50), columns=3)
    assert grid.shape == (2 + 2 * 62, 2 + 3 * 62, 3) and grid.dtype == np.uint8
    rest = grid.copy()
    for i, level in enumerate((10, 20, 30, 40, 50)):
        assert (tile(grid, i // 3, i % 3) == level).all()
        tile(rest, i // 3, i % 3)[:] = 255
    assert (rest == 255).all(), "lines and the empty place are white beside dark images"


@pytest.mark.parametrize(("level", "line"), [(0, 255), (127, 255), (128, 0), (255, 0)])
def test_lines_stand_out(level: int, line: int) -> None:
    images = constant(level).repeat(1, 3, 1, 1)
    images[:, :, 10:50, 10:50] = 1 - level / 255  # what is inside does not matter
    grid = image_grid(images, columns=1)
    assert (grid[:2] == line).all() and (grid[:, -2:] == line).all()


def test_few_images_make_a_small_grid() -> None:
    assert image_grid(constant(1, 2), columns=10).shape == (64, 2 + 2 * 62, 3)


@pytest.mark.parametrize(("size", "factor"), [(8, 7), (28, 2), (32, 2), (55, 2), (56, 1), (64, 1)])
def test_small_images_are_enlarged_without_blurring(size: int, factor: int) -> None:
    image = torch.rand(1, 3, size, size)
    grid = image_grid(image, columns=1)[2:-2, 2:-2]
    expected = np.kron(to_uint8(image)[0], np.ones((factor, factor, 1), np.uint8))
    assert np.array_equal(grid, expected)


def test_levels_come_back_exactly_and_others_are_rounded() -> None:
    levels = np.arange(256).reshape(1, 1, 16, 16)
    for images in (torch.from_numpy(levels) / 255, (levels / 255).astype(np.float32)):
        assert np.array_equal(to_uint8(images), levels.reshape(1, 16, 16, 1))
    odd = torch.tensor([-0.5, 0.0019, 0.0021, 1.7, float("nan"), float("inf")]).reshape(1, 1, 1, 6)
    assert to_uint8(odd)[0, 0, :, 0].tolist() == [0, 0, 1, 255, 0, 255]


def test_colours_keep_their_order_and_grey_is_grey() -> None:
    pixel = torch.tensor([1, 2, 3, 4]) / 255
    for n_channels in (1, 2, 3, 4):
        kept = to_uint8(pixel[:n_channels].reshape(1, -1, 1, 1))
        assert kept[0, 0, 0].tolist() == [1, 2, 3, 4][:n_channels]
    assert in_colour(to_uint8(pixel[:3].reshape(1, -1, 1, 1)))[0, 0, 0].tolist() == [1, 2, 3]
    assert in_colour(to_uint8(pixel[:1].reshape(1, -1, 1, 1)))[0, 0, 0].tolist() == [1, 1, 1]


def test_a_reconstruction_stands_beside_its_image() -> None:
    x, reconstruction = constant(10, 20, 30), constant(11, 21, 31)
    for pair in ((x, reconstruction), (x.numpy(), reconstruction.numpy())):
        grid = pair_grid(*pair, pairs_per_row=2)
        seen = [[tile(grid, row, column)[0, 0, 0] for column in range(4)] for row in range(2)]
        assert seen == [[10, 11, 20, 21], [30, 31, 255, 255]]


def test_a_png_shows_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "new" / "grid.png"
    save_png(path, GRID)
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(image), GRID)
    assert [file.name for file in path.parent.iterdir()] == ["grid.png"]


def test_a_png_is_whole_or_not_there(tmp_path: Path) -> None:
    path, noise = tmp_path / "grid.png", np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    save_png(path, GRID)
    with full_disk(1000), pytest.raises(DataError, match=r"grid\.png: cannot be written \(File too large\)"):
        save_png(path, noise)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), GRID)
    with pytest.raises(DataError, match=r"grid\.png/below: cannot be written \(Not a directory"):
        save_png(path / "below" / "a.png", GRID)


# Read back


def test_a_history_is_what_was_reported(tmp_path: Path) -> None:
    reporter = JsonlReporter(tmp_path / "m.jsonl")
    for step in (2, 4, 4):
        reporter.scalars(step, {"train/nelbo": 100.0 - step, "train/kl": float("inf")})
        reporter.histogram(step, "val/kl_units/00", np.array([0.123456, np.nan]) * step)
    reporter.histogram(5, "val/many", np.zeros(5000))
    with open(tmp_path / "m.jsonl", "a") as file:
        file.write('{"step": 6, "train/nel')  # as a run in progress leaves it
    history = History.read(tmp_path / "m.jsonl")
    steps, values = history.curve("train/nelbo")
    assert (steps.tolist(), values.tolist()) == ([2, 4], [98, 96])
    assert len(history.curve("train/kl")[0]) == len(history.curve("val/many")[0]) == 0
    assert history.last("train/") == {"step": 4, "nelbo": 96, "kl": None}
    assert history.last("val/kl_units/") == {"step": 4, "00": [0.4938, None]}
    assert history.last("other/") == {}


@pytest.mark.parametrize("text", [None, b"{\n", b"\xff\n"])
def test_a_history_that_is_none_is_named(tmp_path: Path, text: bytes | None) -> None:
    if text is not None:
        (tmp_path / "m.jsonl").write_bytes(text)
    with pytest.raises(DataError, match=r"m\.jsonl: cannot be read"):
        History.read(tmp_path / "m.jsonl")
