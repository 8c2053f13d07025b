"""Temperatures: those of each layer, several in one generation, those of p(x|z), and progressive reconstructions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from PIL import Image

from lvae_torch.distributed.processes import Processes
from lvae_torch.errors import CfgError
from lvae_torch.files import read_json
from lvae_torch.synthesis.modes import generation, progressive
from lvae_torch.synthesis.modes.progressive import first_layers
from lvae_torch.synthesis.parts import read_part
from lvae_torch.synthesis.section import SynthesisSection
from lvae_torch.synthesis.session import Session
from lvae_torch.synthesis.temperatures import per_layer
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train


def session(out: Path, **options: Any) -> Session:
    section = SynthesisSection(n_images=6, batch_size=4, columns=3, **options)
    return Session(small.model().eval(), section, Processes(0, 1, torch.device("cpu")), out, {"run": "small"})


def images(folder: Path) -> np.ndarray:
    return np.concatenate([read_part(path)["images"] for path in sorted(folder.glob("part_*.npz"))])


def test_every_setting_has_its_own_images_and_noise(tmp_path: Path) -> None:
    linear = ["linear", 1.0, 0.5]
    metrics = generation.run(session(tmp_path, temperatures=[linear, 0.7, [0.7, 0.7]]))
    assert metrics["settings"] == [
        {"folder": "setting_0", "temperatures": [1.0, 0.5]},
        {"folder": "setting_1", "temperatures": [0.7, 0.7]},
        {"folder": "setting_2", "temperatures": [0.7, 0.7]},
    ]
    first, second, third = (images(tmp_path / f"setting_{k}") for k in range(3))
    assert len(first) == 6
    assert not np.array_equal(second, third)  # equal temperatures, other noise
    assert (tmp_path / "setting_2" / "samples.png").is_file()
    generation.run(session(tmp_path, temperatures=[linear]))
    assert np.array_equal(images(tmp_path / "setting_0"), first)  # whatever the other settings
    assert not (tmp_path / "setting_1").exists()


def test_one_setting_that_does_not_fit_stops_all_before_the_first(tmp_path: Path) -> None:
    with pytest.raises(CfgError, match=r"temperatures = \(1.0, 0.5, 0.2\) does not fit a model of 2 layers"):
        generation.run(session(tmp_path, temperatures=[1.0, [1.0, 0.5, 0.2]]))
    assert list(tmp_path.iterdir()) == []


def test_linear_temperatures_reach_their_end(shared: Path) -> None:
    golden = np.load(shared / "golden" / "efficient_vdvae" / "components" / "temperature_linear.npz")
    for j in range(3):
        top, bottom, n = golden[f"args_{j}"]
        np.testing.assert_allclose(per_layer(("linear", top, bottom), int(n)), golden[f"endpoint_inclusive_{j}"])


def test_a_cold_sample_is_the_mode(tmp_path: Path) -> None:
    """Of logits over 1e-4 all that is left is their sign."""
    generation.run(session(tmp_path / "a", draw="sample", output_temperature=1e-4))
    generation.run(session(tmp_path / "b", draw="mode"))
    assert np.array_equal(images(tmp_path / "a")[:4], images(tmp_path / "b")[:4])  # the first batch draws the same z


def test_a_temperature_of_samples_needs_samples() -> None:
    with pytest.raises(ValueError, match="set draw = sample"):
        SynthesisSection(output_temperature=0.9)


def test_what_is_known_of_an_image_stays_when_more_becomes_known() -> None:
    model, x = small.model().eval(), small.images(2)
    passes = []
    for k in (1, 2):
        torch.manual_seed(3)
        with torch.no_grad():
            passes.append(model(x, first_layers(k, 2, (1.0, 0.0))).latents)
    torch.testing.assert_close(passes[0][0].z, passes[1][0].z)
    torch.testing.assert_close(passes[0][1].z, passes[0][1].prior.mean)  # temperature 0
    assert not torch.equal(passes[1][1].z, passes[1][1].prior.mean)


def test_progressive_reconstructions_are_rows_of_an_image(tmp_path: Path) -> None:
    small.write_dump(tmp_path / "dumps")
    train(small.settings(tmp_path))
    synthesize(small.settings(tmp_path), ["progressive"])
    out = tmp_path / "runs" / "small" / "synthesis" / "progressive"
    metrics = read_json(out / "metrics.json")
    assert (metrics["images"], metrics["known_layers"]) == ([0, 8, 16], [1, 2])
    assert len(metrics["psnr"]) == 2
    with Image.open(out / "progressive.png") as picture:
        assert picture.size == (3 * 58 + 2, 3 * 58 + 2)  # the image and two reconstructions; three rows


def test_deep_models_show_some_of_their_layers() -> None:
    assert progressive.known_layers(3) == [1, 2, 3]
    many = progressive.known_layers(63)
    assert (len(many), many[0], many[-1]) == (12, 1, 63)
    assert many == sorted(set(many))


def test_settings_leave_nothing_of_an_earlier_call(tmp_path: Path) -> None:
    """The parts and pictures of one temperature would stand beside the numbers of several, and the other way round."""
    generation.run(session(tmp_path, save_singles=True))
    assert {path.name for path in tmp_path.iterdir()} == {"part_00000.npz", "part_00001.npz", "samples.png", "singles"}
    generation.run(session(tmp_path, temperatures=[0.5], save_singles=True))
    assert [path.name for path in tmp_path.iterdir()] == ["setting_0"]
    generation.run(session(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"part_00000.npz", "part_00001.npz", "samples.png"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [(0.7, (0.7, 0.7, 0.7)), (("linear", 1.0, 0.5), (1.0, 0.75, 0.5)), ((0.1, 0.2, 0.3), (0.1, 0.2, 0.3))],
)
def test_temperatures(given: Any, expected: tuple[float, ...]) -> None:
    assert per_layer(given, 3) == pytest.approx(expected)


def test_temperatures_of_another_number_of_layers_are_refused() -> None:
    with pytest.raises(CfgError, match="a list of 3"):
        per_layer((1.0, 0.5), 3)
