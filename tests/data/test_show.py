"""Contact sheets of dumps."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lvae_torch.data.dump import Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.errors import DataError
from lvae_torch.show import command as show
from lvae_torch.show import contact_sheet, scatter


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (25, 4, 5, 3), dtype=np.uint8)


@pytest.fixture
def dumps(tmp_path: Path, images: np.ndarray) -> Path:
    with DumpWriter(tmp_path, "x", Layout((3, 4, 5), 256), {}) as writer:
        writer.add("train", images)
        writer.add("test", images[:4])
    return tmp_path


def test_a_contact_sheet_shows_the_pixels(images: np.ndarray) -> None:
    sheet = contact_sheet(images[:5], 256, columns=3)
    side = 12  # images of 4x5 are enlarged 12 times, with 2 pixels between
    assert sheet.shape == (2 * (4 * side + 2) + 2, 3 * (5 * side + 2) + 2, 3)
    fourth = sheet[2 + 4 * side + 2 :][: 4 * side, 2 : 2 + 5 * side]  # row 1, column 0
    assert np.array_equal(fourth[::side, ::side], images[3])
    assert (sheet[-4 * side :, -5 * side :] == 0).all()  # no sixth image; lines are black between bright borders


def test_a_contact_sheet_shows_binary_grey_as_black_and_white() -> None:
    sheet = contact_sheet(np.array([0, 1], dtype=np.uint8).reshape(1, 1, 2, 1), 2, columns=1)
    assert set(np.unique(sheet[2:-2, 2:-2])) == {0, 255}


def test_show_writes_a_png(dumps: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    show([f"{dumps}/x/", "--split", "test", "--out", str(dumps / "sheet.png")])
    with Image.open(dumps / "sheet.png") as picture:
        assert picture.size[0] > 200
    assert "train 25, test 4" in capsys.readouterr().out


def test_the_name_of_a_dump_is_enough(
    dumps: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As that of a run is; it lies where ``[data] dumps`` says by default."""
    monkeypatch.chdir(dumps)
    (dumps / "dataset_dumps").mkdir()
    (dumps / "x").rename(dumps / "dataset_dumps" / "x")
    show(["x"])
    assert (dumps / "dataset_dumps" / "x_train.png").is_file()
    with pytest.raises(DataError, match=r"y: there is no such run .*--name y --dumps dataset_dumps"):
        show(["y"])


def test_show_names_what_is_missing(dumps: Path, repository: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "lvae_torch.show", str(dumps / "y")]
    result = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=60)
    assert result.returncode == 3
    assert "--name y" in result.stderr
    assert "Traceback" not in result.stderr


def test_points_are_shown_as_a_cloud(tmp_path: Path) -> None:
    points = np.array([[-1.0, 0.0], [-1.0, 0.0], [1.0, 4.0]], dtype=np.float32)
    cloud = scatter(points, side=100)
    assert cloud.shape == (100, 100, 3)
    rows, columns = np.nonzero((cloud != cloud[50, 5]).any(axis=-1))
    assert sorted(set(zip(rows.tolist(), columns.tolist(), strict=True))) == [(9, 70), (89, 30)]  # up is up, one scale
    assert cloud[89, 30].sum() < cloud[9, 70].sum()  # two points are darker than one
    with DumpWriter(tmp_path, "x", Layout((2, 1, 1), 0, dtype="float32"), {}) as writer:
        writer.add("train", points[:, None, None, :])
    show([f"{tmp_path}/x", "--out", str(tmp_path / "cloud.png")])
    assert (tmp_path / "cloud.png").stat().st_size > 200


def test_codes_are_shown_in_grey(tmp_path: Path) -> None:
    codes = np.arange(512, dtype=np.uint16).reshape(2, 16, 16, 1)
    assert contact_sheet(codes, 512, 2)[2:-2, 2:-2].max() == 255
