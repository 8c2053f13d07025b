"""Runs of class-conditional models: what they do with labels, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import extractors
import numpy as np
import pytest
import small
import torch
from of_three_classes import MAKERS, N_TEST, N_TRAIN, NAMES, settings, very_deep, write_dump
from running import assert_same_bits, checkpoint, scalars, stop_at
from torch.testing import assert_close

import lvae_torch
from lvae_torch import TrainedRun
from lvae_torch.data.dump import Dump, Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.elbo.bounds import elbo_terms
from lvae_torch.errors import CfgError, DataError, Preempted
from lvae_torch.export import export
from lvae_torch.files import read_json
from lvae_torch.models.contract import of_classes
from lvae_torch.models.sources import given_latents, posterior_mean
from lvae_torch.synthesis.parts import read_part
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dump and a trained run of each family."""
    folder = tmp_path_factory.mktemp("classes")
    write_dump(folder / "dumps")
    train(settings(folder))
    train(very_deep(folder))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of them that a test may change."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


both = pytest.mark.parametrize("name", MAKERS)


@both
def test_a_stopped_run_goes_on_to_the_bit(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shutil.copytree(made / "dumps", tmp_path / "dumps")
    with monkeypatch.context() as patch, pytest.raises(Preempted):
        stop_at(patch, 4)
        train(MAKERS[name](tmp_path))
    train(MAKERS[name](tmp_path))
    assert_same_bits(checkpoint(made, name), checkpoint(tmp_path, name))
    assert scalars(made, name) == scalars(tmp_path, name)
    ema = checkpoint(made, name)["ema"]
    assert any(weight.any() for key, weight in ema.items() if "class_embedding" in key), "the average learns classes"


def test_the_same_images_with_other_labels_are_other_data(folder: Path) -> None:
    before = Dump.open(folder / "dumps", "small").content_hash
    rng = np.random.default_rng(0)
    with DumpWriter(folder / "dumps", "small", Layout(small.IMAGE_SHAPE, 2), {"label_names": NAMES}, 1000) as writer:
        for split, n in (("train", N_TRAIN), ("test", N_TEST)):
            images = rng.integers(0, 2, (n, 8, 8, 1)).astype(np.uint8)
            rng.integers(0, 3, n)
            writer.add(split, images, np.arange(n) % 3)
    assert Dump.open(folder / "dumps", "small").content_hash == before
    with pytest.raises(DataError, match="its labels are not those the run began with"):
        train(settings(folder, train__steps=8))


@both
def test_generation_draws_rows_of_classes(folder: Path, name: str) -> None:
    asked = {"run__name": name, "synthesis__n_images": 0}
    synthesize(MAKERS[name](folder, **asked), ["generation"])
    out = folder / "runs" / name / "synthesis" / "generation"
    parts = [read_part(path) for path in sorted(out.glob("part_*"))]
    labels, images = (np.concatenate([part[key] for part in parts]) for key in ("labels", "images"))
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2], "a row of 3 columns for each class"
    assert read_json(out / "metrics.json")["classes"] == list(NAMES)
    synthesize(MAKERS[name](folder, **asked, synthesis__classes=["top", 0]), ["generation", "layer_inspection"])
    chosen = [read_part(path) for path in sorted(out.glob("part_*"))]
    assert np.concatenate([part["labels"] for part in chosen]).tolist() == [2, 2, 2, 0, 0, 0]
    assert not np.array_equal(chosen[0]["images"][:3], images[:3]), "the noise of image 0, and another class"
    with pytest.raises(
        CfgError, match=r"classes: run .* has no class 'bottom'; there are 3, counted from 0: left, right"
    ):
        synthesize(MAKERS[name](folder, **asked, synthesis__classes=["bottom"]), ["generation"])


def test_a_model_of_one_layer_draws_classes_too(folder: Path) -> None:
    one = settings(folder, run__name="one", model__z_channels=[2], model__downsample=[1], train__steps=1)
    train(one)
    synthesize(one, ["generation"])
    assert read_json(folder / "runs" / "one" / "synthesis" / "generation" / "metrics.json")["classes"] == list(NAMES)


def test_the_quality_of_one_class_is_not_that_of_another(folder: Path) -> None:
    """Although features are kept from call to call."""
    pytest.importorskip("torch_fidelity", reason="needs the extra 'metrics'")
    extractors.script(folder / "tiny.pt", extractors.Tiny())
    asked = {"synthesis__extractor": str(folder / "tiny.pt"), "synthesis__quality_images": 12}
    out, found = folder / "runs" / "small" / "synthesis" / "sample_quality", []
    for chosen in ([0], [1], [0]):
        synthesize(settings(folder, **asked, synthesis__classes=chosen), ["sample_quality"])
        found.append(read_json(out / "metrics.json"))
        assert found[-1]["protocol"]["classes"] == [NAMES[k] for k in chosen]
    assert found[0]["frechet_distance"] == found[2]["frechet_distance"] != found[1]["frechet_distance"]


def test_an_unconditional_run_has_no_classes_to_draw(folder: Path) -> None:
    train(small.settings(folder, run__name="plain", train__steps=1))
    with pytest.raises(CfgError, match="not class-conditional; leave it out"):
        synthesize(small.settings(folder, run__name="plain", synthesis__classes=[0]), ["generation"])


@both
def test_images_are_used_with_their_own_label(folder: Path, name: str) -> None:
    """What the modes write, against the model and the labels of the dump."""
    others = ["likelihood", "analysis", "interpolation", "progressive", "div_stats", "layer_inspection"]
    modes = ["reconstruction", "encoding", "decoding", *(others if name == "small" else [])]
    synthesize(MAKERS[name](folder, synthesis__iw_samples=2), modes)
    run = lvae_torch.load_run(name, runs=folder / "runs", device="cpu")
    x, labels, out = run.images(), run.labels(), folder / "runs" / name / "synthesis"
    assert np.array_equal(labels, Dump.open(folder / "dumps", "small").labels("test"))
    read = [read_part(path) for path in sorted((out / "encoding").glob("part_*"))]
    encoded = {key: torch.from_numpy(np.concatenate([part[key] for part in read])) for key in read[0]}
    assert torch.equal(encoded["labels"], labels)
    z = [encoded[f"z.{i}"] for i in range(len(run.latent_shapes))]
    with torch.no_grad():
        passed = run.model(x, of_classes(given_latents(z), labels))
    for i, latent in enumerate(passed.latents):
        assert_close(encoded[f"posterior_mean.{i}"], latent.encoded.mean, rtol=1e-4, atol=1e-5)
    decoded = np.concatenate([read_part(path)["images"] for path in sorted((out / "decoding").glob("part_*"))])
    wanted = (255 * passed.likelihood.mean()).round().permute(0, 2, 3, 1)
    assert np.abs(decoded.astype(int) - wanted.numpy()).max() <= 1


def test_compression_says_that_it_has_no_classes(folder: Path) -> None:
    with pytest.raises(CfgError, match="a class-conditional model cannot compress"):
        synthesize(settings(folder), ["compression"])


@pytest.fixture(scope="module")
def run(made: Path) -> TrainedRun:
    return lvae_torch.load_run("small", runs=made / "runs", device="cpu")


def test_the_door_takes_labels_by_number_and_by_name(run: TrainedRun) -> None:
    x, y = run.images(), run.labels()
    assert run.classes == NAMES
    named = [NAMES[k] for k in y.tolist()]
    assert torch.equal(run.sample(17, seed=1, labels=y), run.sample(17, seed=1, labels=named))
    assert torch.equal(run.sample(4, seed=1, labels="top"), run.sample(9, seed=1, labels=[2] * 9)[:4])
    with torch.no_grad():
        out = run.model(x, of_classes(posterior_mean, y))
    for z, latent in zip(run.encode(x, labels=y), out.latents, strict=True):
        assert_close(z, latent.z)
    assert_close(run.reconstruct(x, draw=False, labels=y), out.likelihood.mean())
    assert_close(run.decode(run.encode(x, labels=y), labels=y), out.likelihood.mean())
    assert_close(run.posteriors(x, labels=y)[0].mean, out.latents[0].encoded.mean)
    own, other = (run.elbo(x, seed=0, labels=labels).elbo for labels in (y, (y + 1) % 3))
    assert not torch.allclose(own, other)
    assert_close(run.log_likelihood(x, samples=1, seed=0, labels=named).shape, (17,))


CALLS: dict[str, Any] = {
    "sample": lambda run, x, **how: run.sample(len(x), **how),
    "encode": lambda run, x, **how: run.encode(x, **how),
    "posteriors": lambda run, x, **how: run.posteriors(x, **how),
    "reconstruct": lambda run, x, **how: run.reconstruct(x, **how),
    "elbo": lambda run, x, **how: run.elbo(x, **how),
    "log_likelihood": lambda run, x, **how: run.log_likelihood(x, samples=1, **how),
    "decode": lambda run, x, **how: run.decode([torch.zeros(len(x), *s) for s in run.latent_shapes], **how),
}


@pytest.mark.parametrize("call", CALLS)
def test_the_door_says_what_is_wrong_with_labels(run: TrainedRun, call: str) -> None:
    x = run.images(limit=4)
    for labels, message in (
        (None, "small is conditional on 3 classes; give labels"),
        ([0, 1], "2 labels for 4 images of small"),
        ([0, 1, 2, 3], "small has no class 3; there are 3, counted from 0: left, right, top"),
        ("bottom", "small has no class 'bottom'"),
        (torch.tensor([0.5] * 4), "small has no class 0.5"),
    ):
        with pytest.raises(ValueError, match=message):
            CALLS[call](run, x, labels=labels)


def test_a_bundle_keeps_the_classes(folder: Path, run: TrainedRun) -> None:
    shutil.rmtree(folder / "dumps")
    export(settings(folder, val__batch_norm="running"), folder / "runs" / "small", folder / "shared")
    again = lvae_torch.load_run(folder / "shared", device="cpu")
    assert again.classes == NAMES and "left, right, top" in (folder / "shared" / "README.md").read_text()
    assert "labels=0" in (folder / "shared" / "README.md").read_text()
    assert again.sample(2, labels=["left", "top"]).shape == (2, 1, 8, 8)


def test_results_of_other_labels_are_not_taken_over(folder: Path) -> None:
    """The same images and labels, whose classes have other names: other classes of the model."""

    def bounds() -> np.ndarray:
        synthesize(settings(folder), ["likelihood"])
        return read_part(folder / "runs" / "small" / "synthesis" / "likelihood" / "part_00000.npz")["log_p"]

    before = bounds()
    shutil.rmtree(folder / "dumps" / "small")
    write_dump(folder / "dumps", names=NAMES[::-1])
    after = bounds()
    shutil.rmtree(folder / "runs" / "small" / "synthesis")
    assert np.array_equal(after, bounds()) and not np.array_equal(after, before)


@both
def test_fine_tuning_begins_as_the_unconditional_run(folder: Path, name: str, capsys: Any) -> None:
    plain, told = {"run__name": "plain", "model__class_embedding": "none"}, {"run__name": "tuned", "train__steps": 1}
    train(MAKERS[name](folder, **plain))
    with pytest.raises(CfgError, match="initial_partial = True takes what fits"):
        train(MAKERS[name](folder, **told, train__initial_run="plain"))
    tuned = {**told, "train__initial_run": "plain", "train__initial_partial": True, "optimizer__learning_rate": 1e-9}
    train(MAKERS[name](folder, **tuned))
    table = capsys.readouterr().err
    assert "class_embedding.weight" in table and "taken: " in table
    before, after = checkpoint(folder, "plain")["ema"], checkpoint(folder, "tuned")["model"]
    for key, value in before.items():
        if "running_" not in key and "num_batches" not in key:
            assert_close(after[key], value, rtol=1e-4, atol=1e-6)
    assert json.loads((folder / "runs" / "tuned" / "status.json").read_text())["state"] == "finished"


def test_two_shares_have_the_gradient_of_the_whole_batch(run: TrainedRun) -> None:
    """What ranks average; no batch norm statistics, which are each rank's own."""
    model, x, y = run.model.eval(), run.images(limit=8), run.labels(limit=8)
    gradients = []
    for shares in ([slice(None)], [slice(0, None, 2), slice(1, None, 2)]):
        model.zero_grad()
        for share in shares:
            out = model(x[share], of_classes(posterior_mean, y[share]))
            (elbo_terms(x[share], out).nelbo.mean() / len(shares)).backward()
        gradients.append([p.grad.clone() for n, p in model.named_parameters() if "class_" in n and p.grad is not None])
    model.zero_grad()
    assert gradients[0] and all(g.any() for g in gradients[0])
    for whole, shared in zip(*gradients, strict=True):
        assert_close(whole, shared, rtol=1e-4, atol=1e-5)
