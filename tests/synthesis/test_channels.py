"""Images of any number of channels: arrays hold them whole, pictures show them side by side."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch

from lvae_torch.data.dump import Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.files import read_json
from lvae_torch.reporting.grids import BETWEEN, how_shown, image_grid, in_colour, pair_grid, to_uint8
from lvae_torch.show import command as show
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train

CHANNELS = [1, 2, 3, 4, 8]


@pytest.mark.parametrize("channels", CHANNELS)
def test_arrays_are_whole_and_pictures_show_every_channel(channels: int) -> None:
    levels = np.random.default_rng(channels).integers(0, 256, (5, channels, 6, 7), dtype=np.uint8)
    pixels = to_uint8(torch.from_numpy(levels).float() / 255)
    assert np.array_equal(pixels, levels.transpose(0, 2, 3, 1))
    shown = in_colour(pixels)
    if channels == 3:
        assert np.array_equal(shown, pixels)
        return
    width = 7 if channels == 1 else channels * 8
    assert shown.shape == (5, 6, width, 3)
    for c in range(channels):
        for colour in range(3):
            assert np.array_equal(shown[:, :, c * 8 : c * 8 + 7, colour], levels[:, c])
        assert channels == 1 or (shown[:, :, c * 8 + 7] == BETWEEN).all()


@pytest.mark.parametrize("channels", CHANNELS)
def test_grids_of_any_channels(channels: int) -> None:
    x = torch.rand(6, channels, 60, 60)
    width = 60 if channels in (1, 3) else channels * 61
    assert image_grid(x, 3).shape == (2 * 62 + 2, 3 * (width + 2) + 2, 3)
    assert pair_grid(x, x, 3).shape == (2 * 62 + 2, 6 * (width + 2) + 2, 3)


def test_what_is_told_of_pictures() -> None:
    assert [bool(how_shown((c, 4, 4))) for c in CHANNELS] == [False, True, False, True, True]
    assert "the 4 channels of an image side by side" in how_shown((4, 4, 4))
    assert not how_shown((2, 1, 1)), "points are no images"


def write(dumps: Path, channels: int) -> None:
    rng = np.random.default_rng(0)
    with DumpWriter(dumps, "small", Layout((channels, 8, 8), 256), {}) as writer:
        for split, n in (("train", 16), ("test", 6)):
            writer.add(split, rng.integers(0, 256, (n, 8, 8, channels)).astype(np.uint8))


VAE: dict[str, Any] = {
    "train__steps": 1, "val__every": 0, "loss__free_bits": 0.0, "synthesis__save_singles": True, "train__batch_size": 8,
}  # fmt: skip


@pytest.mark.parametrize("channels", [2, 5])
def test_every_mode_keeps_all_channels(tmp_path: Path, channels: int, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "dumps", channels)
    settings = small.settings(tmp_path, model__likelihood="discretized_logistic", **VAE)
    train(settings)
    assert f"pictures show the {channels} channels" in capsys.readouterr().err
    modes = ["generation", "reconstruction", "encoding", "decoding", "layer_inspection", "interpolation", "progressive"]
    synthesize(settings, modes)
    out = tmp_path / "runs" / "small" / "synthesis"
    for mode, n in (("generation", 7), ("decoding", 6)):
        parts = [np.load(path, allow_pickle=False)["images"] for path in sorted((out / mode).glob("part_*.npz"))]
        assert np.concatenate(parts).shape == (n, 8, 8, channels)
        assert f"{channels} channels" in read_json(out / mode / "metrics.json")["pictures"]
    show([str(tmp_path / "dumps" / "small"), "--out", str(tmp_path / "sheet.png")])
    assert (tmp_path / "sheet.png").stat().st_size > 500
