"""Bundles: they say all that a run says, every byte of them is checked, and every damage is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import lvae_torch
from lvae_torch import export
from lvae_torch.errors import CfgError, DataError
from lvae_torch.files import read_json, write_json
from lvae_torch.runs.folder import RunFolder
from lvae_torch.synthesis.modes import MODES
from lvae_torch.synthesize import command, synthesize
from lvae_torch.train import train
from lvae_torch.trained.card import model_card


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with batch norm, its results, and its bundle."""
    folder = tmp_path_factory.mktemp("bundle")
    small.write_dump(folder / "dumps")
    settings = small.settings(folder, train__ema_decay=0.5, val__batch_norm="reestimated")
    train(settings)
    synthesize(settings, ["reconstruction", "likelihood"])
    export.command([str(folder / "runs" / "small"), str(folder / "shared_one"), "--license", "cc0-1.0"])
    return folder


@pytest.fixture
def bundle(folder: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(folder / "shared_one", tmp_path / "copied"))


def test_a_bundle_is_three_files_and_stands_for_its_run(folder: Path) -> None:
    bundle = folder / "shared_one"
    assert {path.name for path in bundle.iterdir()} == {"model.safetensors", "hparams.cfg", "README.md"}
    run, of_bundle = lvae_torch.load_run(folder / "runs" / "small"), lvae_torch.load_run(bundle)
    assert (of_bundle.name, of_bundle.step, of_bundle.is_averaged) == ("shared_one", run.step, True)
    assert of_bundle.trained_on == run.trained_on
    x = run.images(limit=6)
    assert torch.equal(run.elbo(x, seed=1).elbo, of_bundle.elbo(x, seed=1).elbo), "batch norm's statistics included"
    text = (bundle / "hparams.cfg").read_text()
    assert str(folder) not in text, "no path of this machine"


def test_a_bundle_asks_for_nothing_that_only_its_maker_has(folder: Path, tmp_path: Path) -> None:
    asked = {"prior_run": "codes", "codes_to": "codes", "source": "/home/me/z", "extractor": "/home/me/net.pth"}
    options = [option for key, value in asked.items() for option in ("--set", f"synthesis.{key}={value}")]
    export.command([str(folder / "runs" / "small"), str(tmp_path / "alone"), *options])
    run = lvae_torch.load_run(tmp_path / "alone")
    assert all(getattr(run.settings.synthesis, key) is None for key in asked)


def test_the_card_tells_what_was_measured(folder: Path) -> None:
    card = (folder / "shared_one" / "README.md").read_text()
    results = {
        m: read_json(folder / "runs" / "small" / "synthesis" / m / "metrics.json")
        for m in ("reconstruction", "likelihood")
    }
    run = lvae_torch.load_run(folder / "shared_one")
    for told in (
        'license: "cc0-1.0"', run.trained_on.content_hash, f"{results['reconstruction']['nelbo']:.2f} nats per image",
        f"{results['likelihood']['nll_bound']:.2f} nats per image", "3 samples", "17 images of test", "spatial_lvae",
        lvae_torch.__version__, torch.__version__,
    ):  # fmt: skip
        assert told in card, told


def test_a_bundle_in_half_the_bytes_is_the_same_but_for_the_third_digit(folder: Path, tmp_path: Path) -> None:
    export.command([str(folder / "runs" / "small"), str(tmp_path / "half"), "--precision", "bfloat16"])
    whole, half = load_file(folder / "shared_one" / "model.safetensors"), load_file(tmp_path / "half/model.safetensors")
    kernels = {name for name, tensor in whole.items() if tensor.is_floating_point() and tensor.ndim > 1}
    assert {name for name, tensor in half.items() if tensor.dtype == torch.bfloat16} == kernels, "and no statistics"
    assert all(torch.equal(half[name], tensor) for name, tensor in whole.items() if name not in kernels)
    run, rounded = lvae_torch.load_run(folder / "shared_one"), lvae_torch.load_run(tmp_path / "half")
    for name, tensor in rounded.model.state_dict().items():
        assert tensor.dtype == whole[name].dtype, f"{name} is used as it was trained"
        assert torch.allclose(tensor, whole[name], rtol=2**-8, atol=0), f"{name}: 8 bits of mantissa, rounded"
    x = lvae_torch.load_run(folder / "runs" / "small").images(limit=6)
    elbo, of_rounded = (float(model.elbo(x, seed=1).elbo.mean()) for model in (run, rounded))
    assert of_rounded == pytest.approx(elbo, rel=1e-3)
    card = (tmp_path / "half" / "README.md").read_text()
    assert "| stored in | bfloat16" in card and "before they were rounded" in card
    assert "rounded" not in (folder / "shared_one" / "README.md").read_text()


def test_the_card_leaves_out_numbers_of_other_images_and_pruned_ones(folder: Path, tmp_path: Path) -> None:
    run, results = lvae_torch.load_run(folder / "runs" / "small"), RunFolder(tmp_path, "small")
    own = read_json(folder / "runs" / "small" / "synthesis" / "reconstruction" / "metrics.json")
    path = results.synthesis("reconstruction") / "metrics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for changed, is_told in (({}, True), ({"dataset": "fashion_mnist"}, False), ({"keep_fraction": 0.03}, False)):
        write_json(path, {**own, **changed})
        card = model_card(run, "small", "mit", results)
        assert (f"{own['nelbo']:.2f} nats per image" in card) == is_told, changed


def test_every_mode_that_needs_no_data_takes_a_bundle(folder: Path, tmp_path: Path) -> None:
    small_ones = ["--set", "synthesis.n_images=4", "--set", "synthesis.columns=2", "--runs", str(tmp_path)]
    for mode in (name for name, mode in MODES.items() if not mode.reads_images and name != "decoding"):
        command([str(folder / "shared_one"), "--mode", mode, *small_ones])
        assert read_json(tmp_path / "shared_one" / "synthesis" / mode / "metrics.json")["run"] == "shared_one"
    assert len(list((folder / "shared_one").iterdir())) == 3, "results go to runs/, not into the bundle"


def test_a_bundle_reads_images_where_its_dataset_is(folder: Path, tmp_path: Path) -> None:
    places = ["--set", f"data.dumps={str(folder / 'dumps')!r}", "--runs", str(tmp_path)]
    command([str(folder / "shared_one"), "--mode", "reconstruction", *places])
    ours = read_json(tmp_path / "shared_one" / "synthesis" / "reconstruction" / "metrics.json")
    theirs = read_json(folder / "runs" / "small" / "synthesis" / "reconstruction" / "metrics.json")
    assert ours["nelbo"] == pytest.approx(theirs["nelbo"], rel=1e-6)


def test_a_folder_of_links_as_hub_clients_leave_it(bundle: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--x--y" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    for path in bundle.iterdir():
        (snapshot / path.name).symlink_to(path)
    (snapshot / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    assert lvae_torch.load_run(snapshot).step == 6


def edited_metadata(bundle: Path, **changes: str) -> None:
    path = bundle / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        about = {**file.metadata(), **changes}
    save_file(load_file(path), path, about)


def other_weights(bundle: Path) -> None:
    path = bundle / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    weights = load_file(path)
    first = next(iter(weights))
    save_file({**weights, first: weights[first] + 1}, path, about)


def cut(bundle: Path) -> None:
    path = bundle / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def flipped(bundle: Path) -> None:
    path = bundle / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)


def settings_of_another(bundle: Path) -> None:
    """Unsealed, as a person would edit it."""
    path = bundle / "hparams.cfg"
    text = path.read_text().split("\n", 1)[1]
    path.write_text(text.replace("n_filters = 4", "n_filters = 8"))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda b: (b / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda b: (b / "hparams.cfg").unlink(), "hparams.cfg is missing"),
        (lambda b: (b / "model.safetensors").write_bytes(b""), "damaged"),
        (lambda b: (b / "model.safetensors").write_bytes(b"x" * 1000), "damaged"),
        (cut, "damaged"),
        (flipped, "checksum"),
        (other_weights, "checksum"),
        (lambda b: edited_metadata(b, format="other"), "no weights of a bundle"),
        (lambda b: edited_metadata(b, trained_on="[]"), "metadata"),
        (lambda b: edited_metadata(b, step="many"), "metadata"),
        (settings_of_another, "not those of its hparams.cfg"),
        (lambda b: (b / "hparams.cfg").write_text((b / "hparams.cfg").read_text() + "\n"), "damaged, or edited"),
    ],
)
def test_damage_is_named(bundle: Path, damage: Callable[[Path], object], told: str) -> None:
    damage(bundle)
    with pytest.raises((DataError, CfgError), match=told) as raised:
        lvae_torch.load_run(bundle)
    assert str(bundle) in str(raised.value)


def test_a_bundle_has_one_set_of_weights(bundle: Path) -> None:
    for asked in ({"weights": "raw"}, {"checkpoint": 3}, {"checkpoint": "best"}):
        with pytest.raises(CfgError, match="one set of weights"):
            lvae_torch.load_run(bundle, **asked)
    assert lvae_torch.load_run(bundle, checkpoint=6).step == 6


def test_nothing_is_overwritten(folder: Path) -> None:
    with pytest.raises(DataError, match="there is something already"):
        export.export(small.settings(folder), folder / "runs" / "small", folder / "dumps")
    assert json.loads((folder / "dumps" / "small" / "dataset.json").read_text())["dataset"] == "small"


SHIPPED = Path(__file__).resolve().parents[2] / "egs" / "pretrained"
DIGITS = (
    Path(__file__).resolve().parents[1] / "recorded" / "digits.npy"
)  # every 100th test image of static MNIST, as bits
RECORDED = {"spatial_lvae_mnist": (-83.110, -80.977), "efficient_vdvae_mnist": (-89.538, -87.075)}
"""Mean ELBO and 20-sample bound of these 100 digits, nats, seed 0, as recorded when the bundles were made."""


@pytest.mark.parametrize("name", RECORDED)
def test_a_shipped_bundle_scores_as_when_it_was_made(name: str) -> None:
    pixels = np.unpackbits(np.load(DIGITS, allow_pickle=False), axis=1).reshape(100, 1, 28, 28)
    x = torch.from_numpy(pixels).float()
    run = lvae_torch.load_run(SHIPPED / name, device="cpu")
    elbo, bound = RECORDED[name]
    assert float(run.elbo(x, seed=0).elbo.mean()) == pytest.approx(elbo, abs=0.01)
    assert float(run.log_likelihood(x, samples=20, seed=0).mean()) == pytest.approx(bound, abs=0.01)


def test_shipped_bundles_are_small_and_trained_by_us() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*")) < 4_000_000
    for name, n_parameters in (("spatial_lvae_mnist", 634_833), ("efficient_vdvae_mnist", 633_753)):
        run = lvae_torch.load_run(SHIPPED / name)
        assert sum(p.numel() for p in run.model.parameters() if p.requires_grad) == n_parameters
        assert f"{n_parameters:,}" in (SHIPPED / name / "README.md").read_text()
