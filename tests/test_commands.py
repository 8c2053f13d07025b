"""The command line: finding runs, the demo, the baseline that likelihoods are held against."""

import math
from pathlib import Path

import numpy as np
import pytest
import small
import torch

from lvae_torch import demo
from lvae_torch.baseline import per_pixel_mean_nll
from lvae_torch.cli import load_run_or_cfg, main
from lvae_torch.data.dump import Dump
from lvae_torch.errors import CfgError, DataError
from lvae_torch.train import train


def test_a_run_is_found_by_name_folder_or_cfg(tmp_path: Path) -> None:
    small.write_dump(tmp_path / "dumps")
    train(small.settings(tmp_path, train__steps=1, val__images=0))
    moved = tmp_path / "elsewhere"
    (tmp_path / "runs").rename(moved)
    by_name = load_run_or_cfg("small", [], str(moved))
    by_folder = load_run_or_cfg(str(moved / "small"), ["synthesis.n_images=3"])
    assert by_name.run.runs == by_folder.run.runs == str(moved)
    assert by_folder.synthesis.n_images == 3
    cfg = tmp_path / "small.cfg"
    cfg.write_text(small.CFG)
    assert load_run_or_cfg(str(cfg), []).run.name == "small"


@pytest.mark.parametrize("name", ["nothing", "../nothing", "a..b"])
def test_what_is_no_run_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(CfgError, match=r"nothing|a\.\.b"):
        load_run_or_cfg(name, [], str(tmp_path))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CfgError("x"), 2),
        (DataError("x"), 3),
        (OSError(30, "read-only", "x"), 3),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_status(error: BaseException, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    def command(argv: object) -> None:
        raise error

    with pytest.raises(SystemExit) as exit_:
        main(command, [])
    assert exit_.value.code == status
    assert "Traceback" not in capsys.readouterr().err


def test_the_baseline_is_the_entropy_of_independent_pixels(tmp_path: Path) -> None:
    """On its own training set, the cross entropy is the sum of the pixels' entropies."""
    small.write_dump(tmp_path, n_train=300, n_test=50)
    dump = Dump.open(tmp_path, "small")
    training, test = dump.split("train"), dump.split("test")
    x = training.gather(np.arange(300)).double().flatten(1)
    p = x.mean(dim=0).clamp(0.5 / 300, 1 - 0.5 / 300)
    expected = -torch.distributions.Bernoulli(p).log_prob(x).sum(dim=1).mean()
    assert per_pixel_mean_nll(training, training) == pytest.approx(expected.item())
    assert per_pixel_mean_nll(training, test) < 64 * math.log(2)


def test_the_demo_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "N_IMAGES", 200)
    monkeypatch.setattr(demo, "N_WEIGHTED", 10)
    small_sizes = ["train.steps=4", "train.batch_size=8", "optimizer.warmup_steps=1", "val.images=4",
                   "synthesis.columns=2", "synthesis.n_images=4",
                   "synthesis.iw_samples=2", "model.n_filters=4"]  # fmt: skip
    demo.command([f"data.dumps={str(tmp_path / 'd')!r}", f"run.runs={str(tmp_path / 'r')!r}", *small_sizes])
    told = capsys.readouterr().out
    for line in ("What the demo learned", "per-pixel-mean model", "samples.png", "reconstructions.png"):
        assert line in told
    pictures = {path.name for path in (tmp_path / "r").rglob("*.png")}
    assert pictures == {"samples.png", "reconstructions.png", "layer_00.png", "layer_01.png", "layer_02.png"}
