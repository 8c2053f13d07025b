"""What the views of the explorer show: for every family, the Python lines of a picture make the same picture."""

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import explore_cases
import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import lvae_torch
from lvae_torch.data.dump import NO_CLASS, Dump
from lvae_torch.errors import DataError
from lvae_torch.models.contract import of_classes
from lvae_torch.models.sources import given_latents
from lvae_torch.trained.run import TrainedRun

pytest.importorskip("fastapi", reason="the extra 'explore' is not installed")
from fastapi.testclient import TestClient

from lvae_torch.explore.look import Look
from lvae_torch.explore.server import make_app
from lvae_torch.explore.stage import Stage


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("explored")


@pytest.fixture(params=explore_cases.FAMILIES)
def run(request: pytest.FixtureRequest, folder: Path) -> TrainedRun:
    """Of a class-conditional one, that of class 0, to which image 3 belongs."""
    run = explore_cases.run_of(request.param, folder)
    return run.of_class(0) if run.classes else run


@pytest.fixture
def client(run: TrainedRun) -> Iterator[TestClient]:
    with opened(run) as client:
        yield client


def opened(run: TrainedRun) -> TestClient:
    return TestClient(make_app(Stage(run, 'lvae_torch.load_run("it")')), base_url="http://127.0.0.1:8765")


def look(client: TestClient, view: str, asked: dict[str, Any]) -> dict[str, Any]:
    answer = client.post(f"/api/{view}", json=asked)
    assert answer.status_code == 200, (view, asked, answer.text)
    found: dict[str, Any] = answer.json()
    return found


def pixels(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def test_python_lines_make_the_same_pictures(
    run: TrainedRun, client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lvae_torch, "load_run", lambda name: replace(run, label=None))
    monkeypatch.chdir(tmp_path)
    for view, asked in explore_cases.requests_of(run):
        found = look(client, view, asked)
        exec(compile(found["lines"], view, "exec"), {})
        for shown in found["pictures"]:
            made = np.asarray(Image.open(f"{shown['name']}.png"))
            assert np.array_equal(made, pixels(shown["png"])), (view, asked, shown["name"])
            assert made.shape == (shown["height"], shown["width"], 3)
            Path(f"{shown['name']}.png").unlink()
        assert not list(tmp_path.glob("*.png")), (view, "lines make more than the page shows")
        about = Image.open(io.BytesIO(base64.b64decode(found["pictures"][0]["png"]))).text
        settings = json.loads(about["Settings"])
        assert settings["view"] == view and settings["run"] == run.name and about["Python"] == found["lines"]
        assert {key: settings[key] for key in asked if key not in ("image", "a", "b", "base", "moves", "keep")} == {
            key: value
            for key, value in asked.items()
            if key in ("label", "seed", "n", "temperature", "show", "heat", "layers", "weight")
        }


def test_the_description_is_that_of_the_run(run: TrainedRun, client: TestClient) -> None:
    told = client.get("/api/run").json()
    assert [tuple(shape) for shape in told["layers"]] == list(run.latent_shapes)
    assert told["splits"] == {"test": 17, "train": told["splits"]["train"]}
    assert told["run"] == run.name and told["step"] == 1
    assert told["has_plane"] is (run.latent_shapes == ((2,),))


def test_numbers_are_those_of_the_model(run: TrainedRun, client: TestClient) -> None:
    numbers = look(client, "reconstruction", {"image": {"split": "test", "index": 3}, "seed": 5, "heat": 0})["numbers"]
    x = run.images("test", at=[3])
    terms = run.elbo(x, seed=5)
    assert numbers["elbo"] == pytest.approx(float(terms.elbo[0]), rel=1e-6)
    assert numbers["kl"] == pytest.approx(terms.kl[0].tolist(), rel=1e-6)
    assert sum(numbers["channels"]) == pytest.approx(numbers["kl"][0], rel=1e-4)
    if run.model.n_dims:
        assert numbers["bits_per_dim"] == pytest.approx(-numbers["elbo"] / run.model.n_dims / np.log(2), rel=1e-6)
    else:
        assert "bits_per_dim" not in numbers


def test_a_class_is_the_images_own_or_the_one_that_is_asked_for(folder: Path) -> None:
    run = explore_cases.run_of("of_classes", folder)
    image = {"split": "test", "index": 4}
    x, terms = run.images("test", at=[4]), {}
    with opened(run) as client:
        for label, name in ((None, "right"), (0, "left"), (2, "top")):
            found = look(client, "reconstruction", {"image": image, "label": label, "seed": 5})
            assert found["class"] == name
            terms[name] = found["numbers"]["elbo"]
            assert terms[name] == pytest.approx(float(run.elbo(x, seed=5, labels=name).elbo[0]), rel=1e-6)
        assert len(set(terms.values())) == 3
        assert look(client, "samples", {})["class"] == "left"
        refused = client.post("/api/samples", json={"label": 3})
        assert refused.status_code == 422 and "this run has classes 0 to 2" in refused.json()["error"]


def test_an_image_without_a_class_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused itself, with the reason, unless a class is asked for."""
    labels = np.arange(17) % 3
    labels[4] = NO_CLASS
    run = explore_cases.run_of("of_classes", tmp_path)
    monkeypatch.setattr(Dump, "labels", lambda dump, split: labels)
    with opened(run) as client:
        assert look(client, "reconstruction", {"image": {"split": "test", "index": 5}})["class"] == "top"
        image = {"split": "test", "index": 4}
        refused = client.post("/api/reconstruction", json={"image": image})
        assert refused.status_code == 422 and "image 4 of test has label -1" in refused.json()["error"]
        assert look(client, "reconstruction", {"image": image, "label": 1})["class"] == "right"
    assert run.labels("test", at=[5, 3]).tolist() == [2, 0]
    with pytest.raises(DataError, match="image 4 of test has label -1"):
        run.labels("test", limit=17)


def test_a_run_without_classes_refuses_one(folder: Path) -> None:
    with opened(explore_cases.run_of("spatial_lvae", folder)) as client:
        assert look(client, "samples", {})["class"] is None
        refused = client.post("/api/samples", json={"label": 0})
        assert refused.status_code == 422 and "not class-conditional" in refused.json()["error"]


def test_kept_layers_are_shared_and_the_kept_sample_stays(run: TrainedRun) -> None:
    """With k layers given, image j is what it was, and all have its top layers; what is below has the noise it had."""
    z = run.draw(6, seed=3)
    one = run.draw(1, seed=3, first=4)
    for of_six, of_one in zip(z, one, strict=True):
        assert_close(of_six[4:5], of_one)
    for k in range(1, len(z) + 1):
        again = run.draw(6, seed=3, given=[layer[:1] for layer in one[:k]])
        for i, layer in enumerate(again):
            assert_close(layer[4:5], z[i][4:5], rtol=1e-4, atol=1e-5)
            if i < k:
                assert_close(layer, one[i].expand_as(layer))
    assert_close(run.sample(6, seed=3), run.decode(z))


def test_noise_and_latents_are_inverse(run: TrainedRun) -> None:
    """The noise of a draw is what was drawn, times the temperature."""
    z = run.draw(5, temperature=0.5, seed=1)
    noise = run.noise(z)
    for one, other in zip(run.at_noise(noise), z, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-4)
    if all(layer.is_floating_point() for layer in z):
        whole = run.noise(run.draw(5, seed=1))
        assert_close(0.5 * whole[0], noise[0], rtol=1e-4, atol=1e-4)


def test_the_channels_beside_the_moved_one_are_told(run: TrainedRun, client: TestClient) -> None:
    """What each says of the image that is shown before: for a choice, so where there is one."""
    image, move = {"split": "test", "index": 3}, {"layer": 0, "channel": 0, "value": 1.0}
    moves = [move, {**move, "channel": 1}] if run.latent_shapes == ((2,),) else [move]
    numbers = look(client, "latents", {"base": image, "moves": moves})["numbers"]
    if run.latent_shapes == ((2,),) or run.latent_shapes[0][0] == 1 or run.model.image_shape[1:] == (1, 1):
        assert "channels" not in numbers
        return
    own = run.of_class(int(run.labels("test", at=[3])[0])) if run.classes else run
    before = own.decode(own.encode(run.images("test", at=[3])))
    units = own.kl_of_units(own.to_levels(before), seed=0)[0][0]
    assert numbers["channels"] == pytest.approx(units.reshape(len(units), -1).sum(dim=1).tolist(), rel=1e-5)


def test_a_move_changes_its_own_channel_and_what_is_below(run: TrainedRun, client: TestClient) -> None:
    """In prior standard deviations, held against the distribution itself."""
    z = run.draw(1, seed=4)
    noise = run.noise(z)
    layer = len(z) - 1
    noise[layer][:, 0] = 2.0
    moved = run.at_noise(noise)
    for i in range(layer):
        assert_close(moved[i], z[i], rtol=1e-4, atol=1e-4)
    source = given_latents(moved)
    told = of_classes(source, torch.zeros(1, dtype=torch.int64)) if run.classes else source
    prior = run.model(None, told, 1).latents[layer].prior
    if hasattr(prior, "log_std"):
        assert_close(moved[layer][:, 0], (prior.mean + 2 * prior.std)[:, 0], rtol=1e-4, atol=1e-4)
        assert_close(moved[layer][:, 1:], z[layer][:, 1:], rtol=1e-4, atol=1e-4)
    numbers = look(client, "latents", {"base": {"seed": 4}, "moves": [{"layer": layer, "channel": 0, "value": 2.0}]})[
        "numbers"
    ]
    assert numbers["after"] == pytest.approx(float(moved[layer][:, 0].float().mean()), abs=1e-4)


def test_kl_of_units_adds_up_to_the_elbos(run: TrainedRun) -> None:
    x = run.images("test", limit=3)
    units, terms = run.kl_of_units(x, seed=2), run.elbo(x, seed=2)
    assert [tuple(layer.shape[1:]) for layer in units] == list(run.latent_shapes)
    assert_close(torch.stack([layer.flatten(1).sum(dim=1) for layer in units], dim=1), terms.kl)


def test_numbers_that_json_does_not_know_are_none() -> None:
    """However deep they lie: the page would refuse the whole answer."""
    numbers = {"elbo": float("nan"), "kl": [1.0, float("inf")], "pairs": (("a", float("-inf")),), "n": 3}
    packed = Look((), "", numbers).packed({}, "samples", {})
    told = json.loads(json.dumps(packed, allow_nan=False))["numbers"]
    assert told == {"elbo": None, "kl": [1.0, None], "pairs": [["a", None]], "n": 3}
