"""The analysis mode: its numbers against others, and that every figure is there."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from PIL import Image

from lvae_torch.data.dump import Dump, Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.errors import CfgError
from lvae_torch.files import read_json
from lvae_torch.models.contract import Model
from lvae_torch.reporting.figures import draw_bars, draw_clouds, draw_curves, draw_unit_history
from lvae_torch.synthesis.modes import analysis
from lvae_torch.synthesis.modes.analysis import classes_by_column, two_principal_components
from lvae_torch.synthesis.session import Session
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train

PICTURES = ("learning_curve", "kl_units", "kl_per_layer", "units", "classes", "samples", "reconstructions")


@pytest.mark.parametrize("shape", [(50, 7), (7, 50), (20, 2), (20, 1)])
def test_components_are_those_of_the_singular_value_decomposition(shape: tuple[int, int]) -> None:
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.linspace(3, 1, shape[1])
    points = two_principal_components(z)
    u, s, _ = np.linalg.svd((z - z.mean(0)).double().numpy(), full_matrices=False)
    for k in range(min(2, shape[1])):
        by_hand = u[:, k] * s[k]
        assert np.allclose(points[:, k] * np.sign(points[:, k] @ by_hand), by_hand, atol=1e-6)
    if shape[1] == 1:
        assert (points[:, 1] == 0).all()


def trained(folder: Path, labelled: bool) -> Any:
    small.write_dump(folder / "dumps")
    if labelled:
        dump = Dump.open(folder / "dumps", "small")
        images = {split: dump.split(split).gather(np.arange(n)).numpy() for split, n in dump.counts.items()}
        with DumpWriter(folder / "dumps", "small", Layout(small.IMAGE_SHAPE, 2), {}) as writer:
            for split, array in images.items():
                writer.add(split, array, labels=np.arange(len(array)) % 3)
    settings = small.settings(folder, train__log_every=1)
    train(settings)
    return settings


@pytest.mark.parametrize("labelled", [True, False])
def test_every_figure_is_drawn(tmp_path: Path, labelled: bool) -> None:
    from PIL import Image

    settings = trained(tmp_path, labelled)
    synthesize(settings, ["analysis", "reconstruction"])
    folder = tmp_path / "runs" / "small" / "synthesis"
    for name in PICTURES:
        with Image.open(folder / "analysis" / f"{name}.png") as picture:
            assert min(picture.size) > 100, name
    metrics = read_json(folder / "analysis" / "metrics.json")
    assert metrics["units"] == [int(np.prod(shape)) for shape in small.model().latent_shapes()]
    assert len(metrics["kl_per_layer"]) == 2
    # The top layer's posterior does not depend on a draw.
    assert metrics["kl_per_layer"][0] == pytest.approx(
        read_json(folder / "reconstruction" / "metrics.json")["kl_per_layer"][0], rel=1e-5
    )
    assert ("notes" in metrics) is not labelled
    if not labelled:
        assert "no labels" in metrics["notes"][0]


def test_no_two_images_of_the_clouds_share_their_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a layer that holds nothing, the cloud must be the prior's, not a few points drawn again and again."""
    trained(tmp_path, labelled=False)
    settings, keys, x_at = small.settings(tmp_path, synthesis__batch_size=4), list[Any](), Session.x_at

    def told(session: Session, indices: np.ndarray, *key: int | str) -> Any:
        keys.append(key)
        return x_at(session, indices, *key)

    monkeypatch.setattr(Session, "x_at", told)
    synthesize(settings, ["analysis"])
    parts = [key for key in keys if key[0] == "classes"]
    assert len(set(parts)) == len(parts) > 1


def test_the_clouds_hold_no_more_latents_than_memory_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of 2,000 images of a model of 256x256 would take 35 GB."""
    trained(tmp_path, labelled=True)
    per_image = 4 * sum(int(np.prod(shape)) for shape in small.model().latent_shapes())
    monkeypatch.setattr(analysis, "MOST_BYTES", 5 * per_image)
    clouds = list[int]()
    monkeypatch.setattr(analysis, "draw_clouds", lambda path, drawn, *_: clouds.extend(map(len, drawn.values())))
    synthesize(small.settings(tmp_path), ["analysis"])
    assert clouds == [5, 5]
    assert "5 images" in read_json(tmp_path / "runs/small/synthesis/analysis/metrics.json")["notes"][0]


def test_no_pass_takes_more_images_than_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And in pieces an interpolation is the same picture."""
    trained(tmp_path, labelled=True)
    picture, pictures, taken = tmp_path / "runs/small/synthesis/interpolation/interpolation.png", [], list[int]()
    forward = Model.forward

    def counted(model: Model, x: Any, source: Any, n: int | None = None) -> Any:
        taken.append(n or len(x))
        return forward(model, x, source, n)

    monkeypatch.setattr(Model, "forward", counted)
    for size in (100, 4):
        taken.clear()
        synthesize(
            small.settings(tmp_path, synthesis__batch_size=size), ["analysis", "interpolation", "reconstruction"]
        )
        pictures.append(np.asarray(Image.open(picture)).astype(int))
    assert taken and max(taken) == 4
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_one_image_alone_is_not_interpolated(tmp_path: Path) -> None:
    trained(tmp_path, labelled=False)
    with pytest.raises(CfgError, match="between two images, and there is one"):
        synthesize(small.settings(tmp_path, synthesis__limit=1), ["interpolation"])


def test_figures_take_what_runs_give(tmp_path: Path) -> None:
    """A single point, no points, one layer, dead units."""
    one = np.array([1.0])
    draw_curves(tmp_path / "a.png", {"train": (one, one), "test": (one[:0], one[:0])}, "epochs", "nats", "a")
    draw_bars(tmp_path / "b.png", {"KL": [0.0]}, ["z_1"], "nats", "b")
    draw_unit_history(tmp_path / "c.png", {"z_1": (one, np.zeros((1, 4)))}, "epochs", "c")
    draw_clouds(tmp_path / "d.png", {"z_1": np.zeros((3, 2))}, np.array([0, 49, 3]), "d")
    assert all((tmp_path / f"{name}.png").stat().st_size > 1000 for name in "abcd")


def test_classes_have_their_own_names() -> None:
    """Also where some do not occur, as in few images of a sorted split, or an image has none."""
    labels = np.array([7, 3, -1, 7])
    ((_, classes, told),) = classes_by_column(labels, [])
    assert [told[k] for k in classes] == ["7", "3", "no class", "7"]
    ((_, classes, told),) = classes_by_column(labels[:2], [f"a{k}" for k in range(5)])
    assert [told[k] for k in classes] == ["7", "a3"]
    columns = list(classes_by_column(np.array([[1, 5], [-1, 5]]), ["is on", "size"]))
    assert [(name, told) for name, _, told in columns] == [("is_on", ["-1", "1"]), ("size", ["5"])]


def test_the_colours_are_those_of_the_classes(tmp_path: Path) -> None:
    """The bar beside the clouds has one for each, and no others."""
    draw_clouds(tmp_path / "d.png", {"z_1": np.zeros((3, 2))}, np.array([0, 1, 0]), "d", ["7", "no class"])
    with Image.open(tmp_path / "d.png") as picture:
        bar = np.asarray(picture.convert("RGB"))[:, picture.width // 2 :].reshape(-1, 3)
    blue, orange, green = (
        (bar == colour).all(axis=1).sum() for colour in ((31, 119, 180), (255, 127, 14), (44, 160, 44))
    )
    assert abs(blue - orange) < 0.2 * blue and blue > 500 and green == 0


def test_a_bar_of_next_to_nothing_has_its_label_above_the_axis(tmp_path: Path) -> None:
    draw_bars(tmp_path / "exact.png", {"KL": [2.0, 0.0]}, ["z_1", "z_2"], "nats", "KL")
    draw_bars(tmp_path / "rounded.png", {"KL": [2.0, -1e-7]}, ["z_1", "z_2"], "nats", "KL")
    assert (tmp_path / "exact.png").read_bytes() == (tmp_path / "rounded.png").read_bytes()


def test_what_is_no_number_has_no_bar(tmp_path: Path) -> None:
    draw_bars(tmp_path / "none.png", {"KL": [2.0, np.nan]}, ["z_1", "z_2"], "nats", "KL")
    draw_bars(tmp_path / "zero.png", {"KL": [2.0, 0.0]}, ["z_1", "z_2"], "nats", "KL")
    assert (tmp_path / "none.png").read_bytes() != (tmp_path / "zero.png").read_bytes()


def test_the_names_of_many_curves_stand_beside_the_plot(tmp_path: Path) -> None:
    """Inside they would cover curves: the picture is wider then, and the last colour is seen in the new part."""
    few, many = (_curves(tmp_path / f"{n}.png", n) for n in (6, 12))
    assert many.shape[0] == few.shape[0] and many.shape[1] > few.shape[1]
    beside = many[:, few.shape[1] + 100 :].astype(int)
    assert (abs(beside - (255, 127, 14)).sum(-1) < 30).any()  # C11 is the second of ten colours


def _curves(path: Path, n: int) -> np.ndarray:
    draw_curves(path, {f"run {k}": (np.arange(20.0), np.full(20, float(k))) for k in range(n)}, "steps", "nats", "")
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_the_learning_curve_is_of_the_split_that_training_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever split the other figures are of."""
    drawn: list[list[str]] = []
    place = "lvae_torch.synthesis.modes.analysis.draw_curves"
    monkeypatch.setattr(place, lambda path, curves, *_: drawn.append([*curves]))
    settings = trained(tmp_path, labelled=False)
    chosen = settings.synthesis.model_copy(update={"split": "train"})
    synthesize(replace(settings, synthesis=chosen), ["analysis"])
    assert drawn == [["train, running", "test"]]
