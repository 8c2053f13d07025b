"""Runs that version 0.1.0 began: they continue, and come where 0.1.0 came with them."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from torch.testing import assert_close

from lvae_torch.files import read_json
from lvae_torch.hparams import load
from lvae_torch.runs.checkpoint import load_chosen
from lvae_torch.runs.checkpoints import CheckpointStore
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train

RECORDED = Path(__file__).resolve().parents[1] / "recorded"
"""Run folders of 0.1.0 after 4 steps, without their logs; ``then/step_6.pt`` is where 0.1.0 was after 6."""
FAMILIES = ("spatial_lvae", "efficient_vdvae", "ladder")


@pytest.fixture(params=FAMILIES)
def old_run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder of a recorded run, beside the dump that it was trained on."""
    small.write_dump(tmp_path / "dumps")
    folder = tmp_path / "runs" / request.param
    shutil.copytree(RECORDED / request.param, folder)
    return folder


def settings_of(folder: Path, steps: int) -> Any:
    places = small.override_list(folder.parents[1])
    return load(folder / "hparams.cfg", [*places, f"train.steps={steps}"])


def test_an_old_run_goes_on_where_it_would_have_gone(old_run: Path) -> None:
    """To the bit on the kind of machine that it was recorded on; elsewhere sums may be rounded in another order."""
    train(settings_of(old_run, steps=6))
    ours = load_chosen(CheckpointStore(old_run / "checkpoints"), 6).as_dict()
    theirs = torch.load(old_run / "then" / "step_6.pt", weights_only=True)
    for part in ("model", "ema", "optimizer"):
        assert_close(ours[part], theirs[part], rtol=1e-5, atol=1e-6, msg=lambda told, part=part: f"{part}: {told}")


def test_an_old_run_can_be_used(old_run: Path) -> None:
    synthesize(settings_of(old_run, steps=4), ["reconstruction", "generation"])
    metrics = read_json(old_run / "synthesis" / "reconstruction" / "metrics.json")
    assert (metrics["step"], metrics["n_images"]) == (4 if old_run.name != "ladder" else metrics["step"], 17)
