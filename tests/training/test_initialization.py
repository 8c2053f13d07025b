"""Initial weights: no image, batch or family makes them explode; where the first batch serves they are as published."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch

from lvae_torch.data.dump import Layout
from lvae_torch.data.labelled import Labelled
from lvae_torch.data.making import write_dump
from lvae_torch.data.run_data import RunData
from lvae_torch.data.section import DataSection
from lvae_torch.data.writing import DumpWriter
from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.models.contract import Model
from lvae_torch.models.families import FAMILIES
from lvae_torch.models.section import ModelSection
from lvae_torch.training import initialization
from lvae_torch.training.initialization import ODD, check_first_loss, first_loss, initialize, uniform_guess

N, SIDE = 96, 8
SECTIONS: dict[str, dict[str, Any]] = {
    "spatial_lvae": {"z_channels": (2, 3), "downsample": (1, 1), "n_filters": 8, "blocks_per_layer": 2},
    "efficient_vdvae": {"scales": (1, 2, 4), "bottom_up": ((1,), (1,), (1,)), "top_down": ((1,), (1,), (2,)),
                        "widths": 8, "z_channels": 2, "kernels": (3, 3, 1)},
    "ladder": {"z_dims": (4, 3), "widths": (8, 6)},
    "hierarchical_vae": {"z_dims": (4, 3), "widths": (8, 6)},
    "vae": {"z_dim": 3, "widths": (5, 4)},
    "vlae": {"z_dim": 3, "widths": (5, 4), "prior_widths": (7, 6)},
    "vqvae": {"width": 6, "n_codes": 4, "residual_blocks": 1, "likelihood": "discretized_logistic"},
}  # fmt: skip


def pictures(kind: str) -> np.ndarray:
    """uint8 (N, SIDE, SIDE, 1)."""
    rng = np.random.default_rng(0)
    x = np.zeros((N, SIDE, SIDE, 1), np.uint8)
    match kind:
        case "sparse":  # one in 20 has anything in it
            x[::20, 2:6, 2:6] = 200
        case "one pixel":
            x[7, 3, 3] = 255
        case "constant":
            x += np.arange(N, dtype=np.uint8).reshape(-1, 1, 1, 1)
        case "one image":
            x += rng.integers(0, 256, (1, SIDE, SIDE, 1)).astype(np.uint8)
        case "grey":
            x += 127
        case "noise":
            x = rng.integers(0, 256, x.shape).astype(np.uint8)
    return x


def run_data(folder: Path, kind: str, batch_size: int) -> RunData:
    if not (folder / kind).exists():
        with DumpWriter(folder, kind.replace(" ", "_"), Layout((1, SIDE, SIDE), 256), {}) as writer:
            for split in ("train", "test"):
                writer.add(split, pictures(kind))
    return RunData.of(DataSection(dataset=kind.replace(" ", "_"), dumps=str(folder), val_split="test"), batch_size, 0)


def section(family: str, **more: Any) -> ModelSection:
    likelihood = {"likelihood": "discretized_logistic_mixture", "n_mixtures": 2}
    return FAMILIES[family](**{**likelihood, **SECTIONS[family], **more})


@pytest.mark.parametrize("kind", ["sparse", "one pixel", "blank", "grey", "constant", "one image", "noise"])
@pytest.mark.parametrize("family", list(SECTIONS))
def test_no_data_make_the_first_loss_explode(tmp_path: Path, family: str, kind: str) -> None:
    variants: list[dict[str, Any]] = [{"batch_norm": True}, {"batch_norm": False}] if family == "spatial_lvae" else [{}]
    for batch_size in (1, 4, 64):
        for more in variants:
            chosen = section(family, **more)
            data = run_data(tmp_path, kind, batch_size)
            if batch_size == 1 and chosen.least_images((1, SIDE, SIDE), 256) > 1:
                continue  # refused when the cfg is read
            seed_everything("initialization", 0)
            model = chosen.build((1, SIDE, SIDE), 256)
            initialize(model, data, 0)
            found = first_loss(model, data.telling(32, torch.device("cpu")), 1)
            assert found <= ODD * uniform_guess(model, 256), (batch_size, more, found)
            assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_where_the_first_batch_serves_weights_are_as_published(
    tmp_path: Path, batch_size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    data, models = run_data(tmp_path, "noise", batch_size), []
    for begin in (
        lambda m: m.initialize(data.first_batch(torch.device("cpu")).images),
        lambda m: initialize(m, data, 0),
    ):
        seed_everything("initialization", 0)
        models.append(section("spatial_lvae", downsample=(1, 0)).build((1, SIDE, SIDE), 256))
        begin(models[-1])
    ours, published = models[1].state_dict(), models[0].state_dict()
    assert all(torch.equal(ours[name], published[name]) for name in published)
    assert capsys.readouterr().err == ""


def test_a_first_batch_that_tells_nothing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = run_data(tmp_path, "one pixel", 4)
    seed_everything("initialization", 0)
    model = section("spatial_lvae", batch_norm=False, blocks_per_layer=4).build((1, SIDE, SIDE), 256)
    model.initialize(data.first_batch(torch.device("cpu")).images)
    worst = data.telling(16, torch.device("cpu"))
    assert first_loss(model, worst, 0) > 1e3 * uniform_guess(model, 256), "the published way alone explodes"
    seed_everything("initialization", 0)
    model = section("spatial_lvae", batch_norm=False, blocks_per_layer=4).build((1, SIDE, SIDE), 256)
    initialize(model, data, 0)
    assert first_loss(model, worst, 0) < 5 * uniform_guess(model, 256)
    assert "The first batch tells too little for the initial weights" in capsys.readouterr().err


def test_blank_images_leave_the_weights_as_they_were_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = run_data(tmp_path, "grey", 4)
    model = section("spatial_lvae").build((1, SIDE, SIDE), 256)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    initialize(model, data, 0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert capsys.readouterr().err.splitlines() == [
        "All images are alike, one value everywhere: the initial weights are not scaled to them."
    ]


def test_images_that_tell_something_are_looked_at(tmp_path: Path) -> None:
    data = run_data(tmp_path, "one pixel", 4)
    telling = data.telling(6, torch.device("cpu"))
    assert len(telling) == 6 and telling.images.max() == 1
    assert len(data.telling(500, torch.device("cpu"))) == N


def test_a_hopeless_start_is_told_and_the_look_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = run_data(tmp_path, "noise", 4)
    model = section("spatial_lvae").build((1, SIDE, SIDE), 256)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(30)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_first_loss(model, data, 0)
    assert "Before the first step the -ELBO is" in capsys.readouterr().err
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()) and model.training


@pytest.mark.parametrize(("at_once", "largest"), [(1, 1), (3, 4), (9, 16), (64, 16)])
def test_the_first_loss_is_looked_at_in_parts_as_a_step_is(
    tmp_path: Path, at_once: int, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is the mean over the same images; none of the parts is smaller than what training takes at once."""
    data, sizes, seen = run_data(tmp_path, "noise", 4), [], []

    def noted(model: Model, batch: Labelled, seed: int) -> float:
        sizes.append(len(batch))
        seen.append(batch.images)
        return 1e4 * float(batch.images.mean())

    monkeypatch.setattr(initialization, "first_loss", noted)
    monkeypatch.setattr(initialization, "uniform_guess", lambda model, n_levels: 0.0)  # so that it is told
    told: list[str] = []
    check_first_loss(section("vae").build((1, SIDE, SIDE), 256), data, 0, told.append, at_once)
    whole = data.telling(16, torch.device("cpu")).images
    assert torch.equal(torch.cat(seen), whole) and max(sizes) == largest and min(sizes) >= min(at_once, 16)
    assert f"the -ELBO is {1e4 * float(whole.mean()):,.0f} nats" in told[0]


def test_an_image_that_is_far_off_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where values are continuous, nothing bounds them."""
    images = np.random.default_rng(0).normal(size=(40, SIDE, SIDE, 1)).astype(np.float32)
    images[17, 2, 3, 0] = -1e30
    write_dump("floats", {"train": images, "test": images[:8]}, tmp_path)
    section_of_data = DataSection(dataset="floats", dumps=str(tmp_path), val_split="test")
    data = RunData.of(section_of_data, batch_size=4, seed=0)
    model = section("spatial_lvae", likelihood="gaussian").build((1, SIDE, SIDE), 0)
    check_first_loss(model, data, 0)
    told = capsys.readouterr().err
    assert "leave images out like number 17 of the training split, which has a value of -1e+30" in told


@pytest.mark.parametrize(
    ("family", "more", "least"),
    [
        ("ladder", {}, 2),
        ("ladder", {"batch_norm": False}, 1),
        ("spatial_lvae", {}, 2),  # its top maps are 1 x 1
        ("spatial_lvae", {"batch_norm": False}, 1),
        ("spatial_lvae", {"downsample": (1, 0)}, 1),
        ("vae", {}, 1),
    ],
)
def test_batch_norm_of_a_single_value_is_known_before(family: str, more: dict[str, Any], least: int) -> None:
    """Against what a step on one image says."""
    chosen = section(family, **more)
    assert chosen.least_images((1, SIDE, SIDE), 256) == least
    model, x = chosen.build((1, SIDE, SIDE), 256).train(), torch.rand(1, 1, SIDE, SIDE)
    if least == 1:
        assert first_loss(model, Labelled(x), 0) > 0
    else:
        with pytest.raises(ValueError, match="more than 1 value"):
            first_loss(model, Labelled(x), 0)
    assert first_loss(model, Labelled(torch.rand(least, 1, SIDE, SIDE)), 0) > 0


def test_parts_of_one_image_are_refused_when_the_cfg_is_read(tmp_path: Path) -> None:
    from lvae_torch.errors import CfgError
    from lvae_torch.hparams import load

    small.write_dump(tmp_path / "dumps")
    text = "[run]\nname = a\n[data]\ndataset = small\n[model]\nfamily = ladder\nz_dims = [3, 2]\nwidths = [5, 4]\n"
    (tmp_path / "a.cfg").write_text(text + "[train]\nbatch_size = 4\naccumulate = 4\n")
    overrides = small.override_list(tmp_path)
    with pytest.raises(CfgError, match=r"batch_size = 4 in 4 parts is one image at a time, but the batch norm"):
        load(tmp_path / "a.cfg", overrides, with_images=True)
    load(tmp_path / "a.cfg", [*overrides, "train.accumulate=2"], with_images=True)
    load(tmp_path / "a.cfg", [*overrides, "model.batch_norm=False"], with_images=True)
    with pytest.raises(CfgError, match="one image at a time"):  # which is encoded once, however often it is decoded
        load(tmp_path / "a.cfg", [*overrides, "loss.mc_samples=2"], with_images=True)
