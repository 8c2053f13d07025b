"""Checkpoints of ladder-vae-pytorch, as boilr lays them down, become runs of ours."""

import pickle
import shutil
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import upstream
from other_programs import checkpoint_in, import_it
from torch.testing import assert_close

import data_scripts
from data_scripts import multi_dsprites, multi_mnist
from lvae_torch.data.dump import Dump
from lvae_torch.elbo.bounds import elbo_terms
from lvae_torch.elbo.passes import published_nll
from lvae_torch.errors import CfgError, DataError
from lvae_torch.hparams import load
from lvae_torch.import_run import command
from lvae_torch.interop.spatial_lvae_run import DUMPS, native_sections
from lvae_torch.models.sources import posterior_mean
from lvae_torch.runs.checkpoint import load_newest
from lvae_torch.runs.checkpoints import CheckpointStore

FOLDERS = sorted((Path(__file__).resolve().parents[1] / "golden" / "ladder_vae_pytorch").glob("?"))
folders = pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])


@folders
def test_likelihood_and_kl_are_those_of_the_original(tmp_path: Path, folder: Path) -> None:
    run = import_it(tmp_path, folder)
    settings, checkpoint = load(run / "hparams.cfg"), load_newest(CheckpointStore(run / "checkpoints"), print)
    assert checkpoint is not None and checkpoint.step == 30_000 and checkpoint.ema is None
    on = checkpoint.about.trained_on
    model = settings.model.build(on.image_shape, on.n_levels)
    model.load_state_dict(checkpoint.weights())
    with np.load(folder / "vectors.npz", allow_pickle=False) as arrays:
        x, ll, kl = (torch.from_numpy(arrays[name]) for name in ("x", "ll", "kl"))
    with torch.no_grad():
        out = model.eval()(x, posterior_mean)
        terms = elbo_terms(x, out, settings.loss.kl_estimate)
        nll = published_nll(x, out)
    assert_close(terms.nll if nll is None else nll, -ll, rtol=1e-5, atol=1e-3)
    assert_close(terms.kl.sum(dim=1), kl[0], rtol=1e-5, atol=1e-3)


def test_flags_become_settings(tmp_path: Path) -> None:
    settings = load(import_it(tmp_path, FOLDERS[1]) / "hparams.cfg")
    assert settings.data.dataset == "cifar10"
    assert settings.loss.beta == ("linear", 100) and settings.loss.kl_estimate == "analytic"
    assert settings.loss.free_bits == 0.5 and settings.optimizer.name == "adamax"
    assert (settings.train.batch_size, settings.train.ema_decay, settings.run.seed) == (64, 0.0, 42)


@pytest.mark.parametrize(("theirs", "recipe"), [
    ("multi_dsprites_binary_rgb", multi_dsprites), ("multi_mnist_binary", multi_mnist),
])  # fmt: skip
def test_scenes_are_those_of_the_published_file(
    small_mirror: Callable[..., Any], tmp_path: Path, theirs: str, recipe: ModuleType
) -> None:
    """The dump that an import names is the one that its recipe makes of addtt's own file, and of the same shape."""
    flags = {**vars(pickle.loads((FOLDERS[0] / "config.pkl").read_bytes())), "dataset_name": theirs}
    channels = 3 if recipe is multi_dsprites else 1
    folder, _ = small_mirror(partial(upstream.sprites, name=recipe.PUBLISHED.name, channels=channels))
    made = data_scripts.make(recipe.RECIPE.name, tmp_path, mirror=str(folder), published=True)
    assert native_sections(flags, "config.pkl")["data"]["dataset"] == made
    assert Dump.open(tmp_path, made).image_shape == DUMPS[theirs][1]


def test_a_whole_output_folder_is_searched(tmp_path: Path) -> None:
    """With an older checkpoint, pictures, and a history that only boilr could read."""
    theirs = tmp_path / "output" / "210101_static_mnist"
    shutil.copytree(FOLDERS[0], theirs / "checkpoints", ignore=shutil.ignore_patterns("*.npz"))
    shutil.copy(theirs / "checkpoints" / "model_30000.pt", theirs / "checkpoints" / "model_10000.pt")
    (theirs / "results").mkdir()
    (theirs / "results" / "log.pkl").write_bytes(b"\x80\x03cboilr.utils.summarize\nHistory\nq\x00.")
    (theirs / "results" / "sample_10000.png").write_bytes(b"\x89PNG")
    assert checkpoint_in(import_it(tmp_path, theirs))["state"]["step"] == 30_000


def test_home_and_variables_in_the_folder_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``[run] runs`` of any command, whose text the shell leaves alone inside quotes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WHERE", "elsewhere")
    for runs, folder in (("~/runs", "home/runs"), ("$WHERE/runs", "elsewhere/runs")):
        command([str(FOLDERS[0]), "--name", "taken", f"--set=run.runs='{runs}'", "--set=run.device=cpu"])
        assert (tmp_path / folder / "taken" / "hparams.cfg").is_file()
    for runs in ("$NOWHERE/runs", "${NOWHERE}/runs"):
        with pytest.raises(CfgError, match=r"run\.runs: the environment variable NOWHERE of .* is not set"):
            command([str(FOLDERS[0]), "--name", "taken", f"--set=run.runs='{runs}'"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "home"]


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return Path.touch, (self.path,)


def test_what_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(FOLDERS[0], theirs)
    (tmp_path / "alone").mkdir()
    alone = shutil.copy(theirs / "model_30000.pt", tmp_path / "alone")
    with pytest.raises(DataError, match=r"but no config\.pkl beside"):
        import_it(tmp_path, alone)
    flags = vars(pickle.loads((theirs / "config.pkl").read_bytes()))
    (theirs / "config.pkl").write_bytes(pickle.dumps(Namespace(**{**flags, "z_dims": [4, 3, 2]})))
    with pytest.raises(CfgError, match="z_channels has 3 entries and downsample 2"):
        import_it(tmp_path, theirs)
    (theirs / "config.pkl").write_bytes(pickle.dumps(Namespace(**{**flags, "n_filters": 8})))
    with pytest.raises(DataError, match=r"do not belong to the flags beside them\. First difference: top_prior|first"):
        import_it(tmp_path, theirs)
    (theirs / "config.pkl").write_bytes(pickle.dumps(Namespace(**{**flags, "dataset_name": "mine"})))
    with pytest.raises(CfgError, match="dataset_name = 'mine' is none of static_mnist"):
        import_it(tmp_path, theirs)
    (theirs / "config.pkl").write_bytes(pickle.dumps(Namespace(**{**flags, "lr": Trap(tmp_path / "sprung")})))
    with pytest.raises(DataError, match="would run code"):
        import_it(tmp_path, theirs / "config.pkl")
    assert not (tmp_path / "sprung").exists()
    assert list((tmp_path / "runs").iterdir()) == []
