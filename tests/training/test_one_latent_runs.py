"""Runs of the VAE and the VLAE, of images and of points: every mode, what pictures show, resuming, several ranks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
from PIL import Image
from running import assert_same_bits, checkpoint, checkpoints_of_one_and_two_ranks, out, scalars, stop_at
from torch.testing import assert_close

from lvae_torch.data.dump import Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.errors import Preempted
from lvae_torch.files import read_json
from lvae_torch.hparams import Settings, load_text
from lvae_torch.synthesis.modes import MODES
from lvae_torch.synthesis.parts import read_part
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train

HEAD, _, REST = small.CFG.partition("[model]")
TAIL = REST[REST.index("[loss]") :]
MODEL = {
    "vae": "family = vae\nnetwork = dense\nz_dim = 3\nwidths = [9, 7]\nlikelihood = gaussian\nstd = 'optimal'\n",
    "vlae": "family = vlae\nz_dim = 3\nwidths = [4, 5]\nprior_widths = [8]\n",
}
POINTS = {"model__likelihood": "gaussian", "model__std": "per_output", "model__network": "dense", "val__images": 0}
BOTH = pytest.mark.parametrize("family", MODEL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small.write_dump(tmp_path / "dumps", n_levels=256)
    rng = np.random.default_rng(0)
    with DumpWriter(tmp_path / "dumps", "points", Layout((2, 1, 1), 0, dtype="float32"), {}) as writer:
        for split, n in (("train", 36), ("test", 25)):
            writer.add(split, (rng.normal(size=(n, 1, 1, 2)) * (5, 1)).astype(np.float32))
    return tmp_path


def settings(folder: Path, family: str, **overrides: Any) -> Settings:
    text = f"{HEAD}[model]\n{MODEL[family]}{TAIL}"
    return load_text(text, "small.cfg", small.override_list(folder, overrides))


def results(folder: Path, mode: str) -> dict[str, Any]:
    read: dict[str, Any] = read_json(out(folder, mode) / "metrics.json")
    return read


@BOTH
@pytest.mark.parametrize("overrides", [{}, {"data__dataset": "points", **POINTS}], ids=["images", "points"])
def test_every_mode_runs(folder: Path, family: str, overrides: dict[str, Any]) -> None:
    asked = settings(folder, family, **overrides)
    train(asked)
    # A density has nothing to be coded, and sample_quality needs a file of weights (test_sample_quality.py).
    synthesize(asked, [mode for mode in MODES if mode not in ("compression", "sample_quality")])
    assert results(folder, "likelihood")["n_images"] == (25 if overrides else 17)
    assert results(folder, "encoding")["latent_shapes"] == [[3]]
    for mode in ("likelihood", "reconstruction"):
        assert "bits_per_dim" not in results(folder, mode)
    assert ("ssim" in results(folder, "reconstruction")) is not bool(overrides)
    evaluated = [line for line in scalars(folder, "small") if "val/nelbo" in line]
    assert evaluated and not any(key.endswith("bpd") for line in scalars(folder, "small") for key in line)
    pictures = [out(folder, mode) / name for mode, name in (
        ("generation", "samples.png"), ("decoding", "decoded.png"), ("reconstruction", "reconstructions.png"),
        ("layer_inspection", "layer_00.png"), ("interpolation", "interpolation.png"), ("analysis", "samples.png"),
    )]  # fmt: skip
    for path in pictures:
        with Image.open(path) as picture:
            assert min(picture.size) > 100, path


def test_points_are_kept_as_they_are(folder: Path) -> None:
    """Neither cut to [0, 1] nor rounded to levels."""
    asked = settings(folder, "vae", data__dataset="points", **POINTS, synthesis__draw="sample")
    train(asked)
    synthesize(asked, ["generation", "encoding", "decoding"])
    drawn = np.concatenate([read_part(path)["points"] for path in out(folder, "generation").glob("part_*.npz")])
    assert (drawn.shape, drawn.dtype) == ((7, 2), np.float32)
    assert (drawn < 0).any() and (drawn > 1).any()
    decoded = [read_part(path) for path in sorted(out(folder, "decoding").glob("part_*.npz"))]
    assert sum(len(part["points"]) for part in decoded) == sum(len(part["indices"]) for part in decoded) == 25


def test_interpolations_go_from_one_reconstruction_to_the_other(folder: Path) -> None:
    asked = settings(folder, "vae")
    train(asked)
    synthesize(asked, ["interpolation"])
    metrics = results(folder, "interpolation")
    assert metrics["weights"] == pytest.approx(np.linspace(0, 1, 10).tolist())
    pairs = np.array(metrics["pairs"])
    assert pairs.shape == (8, 2)  # of 17 images
    assert len(np.unique(pairs)) == 16
    with Image.open(out(folder, "interpolation") / "interpolation.png") as picture:
        tile = 56 + 2
        assert picture.size == (10 * tile + 2, 8 * tile + 2)


@BOTH
def test_a_stopped_run_continues_to_the_bit(folder: Path, monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    """Also the variance that a sigma-VAE remembers."""
    train(settings(folder, family, run__name="whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(Preempted):
            train(settings(folder, family, run__name="parts"))
    train(settings(folder, family, run__name="parts"))
    assert_same_bits(checkpoint(folder, "whole"), checkpoint(folder, "parts"))
    assert scalars(folder, "whole") == scalars(folder, "parts")


@pytest.mark.slow
def test_two_ranks_compute_what_one_does(folder: Path) -> None:
    """The prior is measured after the pass through the model; its gradients are averaged over ranks all the same."""
    cfg = f"{HEAD}[model]\n{MODEL['vlae']}{TAIL}"
    one, two = checkpoints_of_one_and_two_ranks(folder, cfg, train__ema_decay=0.0)
    assert any(name.startswith("prior.") for name in one["model"])
    for name, tensor in one["model"].items():
        assert_close(tensor, two["model"][name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
