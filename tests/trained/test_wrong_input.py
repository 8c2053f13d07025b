"""What the Python door does with input of other kinds: takes it, or says with TypeError or ValueError what to give."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from PIL import Image

import lvae_torch
from lvae_torch import TrainedRun
from lvae_torch.data.pictures import PictureFit
from lvae_torch.data.run_data import make_preprocess
from lvae_torch.data.section import DataSection
from lvae_torch.errors import CfgError
from lvae_torch.train import train
from lvae_torch.trained.labels import checked_labels
from lvae_torch.trained.pictures import Fit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("input")
    small.write_dump(folder / "dumps")
    train(small.settings(folder, train__ema_decay=0.5, train__steps=2, run__name="2d_run"))
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> TrainedRun:
    return lvae_torch.load_run("2d_run", runs=folder / "runs", device="cpu")


Z = [torch.zeros(2, 3, 1, 1), torch.zeros(2, 2, 2, 2)]
X = torch.zeros(2, 1, 8, 8)
ARRAYS = [z.numpy() for z in Z]
TENSORS = r"latent 0 is ndarray; give torch tensors, such as torch\.from_numpy"
WRONG: dict[str, tuple[Callable[[TrainedRun], Any], type[Exception], str]] = {
    "decode arrays": (lambda run: run.decode(ARRAYS), TypeError, TENSORS),
    "noise of arrays": (lambda run: run.noise(ARRAYS), TypeError, TENSORS),
    "sample below arrays": (lambda run: run.sample(2, given=ARRAYS[:1]), TypeError, TENSORS),
    "other number given": (lambda run: run.sample(8, given=Z[:1]), ValueError, r"2 latents .*sample of 8.*1 or 8"),
    "two numbers given": (lambda run: run.sample(2, given=[Z[0], Z[1][:1]]), ValueError, "top layer first"),
    "sample none": (lambda run: run.sample(0), ValueError, "n is 0; .* 1 or more"),
    "draw none": (lambda run: run.draw(0), ValueError, "n is 0; .* 1 or more"),
    "sample less than none": (lambda run: run.sample(-1), ValueError, "n is -1; .* 1 or more"),
    "sample a half": (lambda run: run.sample(0.5), TypeError, "n is 0.5; .*whole number"),
    "sample text": (lambda run: run.sample("4"), TypeError, "n is '4'; .*whole number"),
    "begin before the first": (lambda run: run.sample(1, first=-1), ValueError, "first is -1; .* 0 or more"),
    "begin in between": (lambda run: run.sample(1, first=0.5), TypeError, "first is 0.5; .*whole number"),
    "temperature below 0": (lambda run: run.sample(2, temperature=-1.0), ValueError, "temperature = -1.0.* 0 or more"),
    "one below 0": (lambda run: run.sample(2, temperature=[1.0, -1.0]), ValueError, "temperature = .* 0 or more"),
    "temperature nan": (lambda run: run.sample(2, temperature=float("nan")), ValueError, "temperature = nan"),
    "end below 0": (lambda run: run.draw(2, temperature=("linear", 1.0, -1.0)), ValueError, "temperature = .* 0 or mo"),
    "decode nothing": (lambda run: run.decode(None), TypeError, "latents are NoneType; give a list of torch tensors"),
    "decode one tensor": (lambda run: run.decode(Z[0]), TypeError, "latents are Tensor; give a list of torch tensors"),
    "below one tensor": (lambda run: run.sample(2, given=Z[0]), TypeError, "latents are Tensor; give a list"),
    "decode nan": (lambda run: run.decode([Z[0], Z[1] / 0]), ValueError, "latent 1 has values that are not finite"),
    "noise is nan": (lambda run: run.at_noise([Z[0] / 0, Z[1]]), ValueError, "latent 0 has values that are not fini"),
    "decode complex": (lambda run: run.decode([z + 0j for z in Z]), TypeError, r"latent 0 is torch.complex64; give re"),
    "samples of a half": (lambda run: run.log_likelihood(X, samples=2.5), TypeError, "samples is 2.5; .*whole number"),
    "no samples": (lambda run: run.log_likelihood(X, samples=0), ValueError, "samples is 0; give 1 or more"),
    "levels of bytes": (lambda run: run.to_levels(X.byte()), TypeError, "images are torch.uint8; .* pixels / 255"),
    "levels of an array": (lambda run: run.to_levels(X.numpy()), TypeError, "images are ndarray; .* pixels / 255"),
    "temperature text": (lambda run: run.sample(2, temperature=["a", "b"]), ValueError, "temperature = .*number"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_input_is_told(run: TrainedRun, what: str) -> None:
    call, error, message = WRONG[what]
    with pytest.raises(error, match=message):
        call(run)


def test_numbers_of_numpy_are_numbers(run: TrainedRun) -> None:
    assert torch.equal(run.sample(np.int64(3), seed=1, first=np.int32(2)), run.sample(3, seed=1, first=2))
    one = run.sample(3, seed=1, given=[Z[0][:1]])
    assert torch.equal(one, run.sample(3, seed=1, given=[torch.zeros(3, 3, 1, 1)]))
    for other in (torch.float64, torch.int64):
        decoded = run.decode([z.to(other) for z in Z])
        assert decoded.dtype == torch.float32 and torch.equal(decoded, run.decode(Z)), "as images are"
    array = np.array([0.5, 0.7])
    assert torch.equal(run.sample(3, temperature=array, seed=1), run.sample(3, temperature=[0.5, 0.7], seed=1))
    assert torch.equal(run.sample(3, temperature=torch.tensor(0.5), seed=1), run.sample(3, temperature=0.5, seed=1))


@pytest.mark.parametrize("family", ["vae", "vlae", "ladder"])
def test_whole_numbers_are_latents_of_every_family(run: TrainedRun, family: str) -> None:
    of_family = replace(run, model=small.SMALL[family]().eval())
    z = [torch.tensor([[1, -2, 0, 3][: shape[0]]]) for shape in of_family.latent_shapes]
    assert torch.equal(of_family.decode(z), of_family.decode([layer.float() for layer in z]))
    assert torch.equal(of_family.at_noise(z)[0], of_family.at_noise([layer.float() for layer in z])[0])


@pytest.mark.parametrize("section", [{}, {"levels": (5,)}])
def test_codes_are_those_of_the_model(run: TrainedRun, section: dict[str, Any]) -> None:
    """Also of rounded levels, which have no table that a wrong code would be outside of."""
    of_codes = replace(run, model=small.vqvae(**section).eval())
    z = torch.tensor([0, 1, 2, 4]).view(1, 1, 2, 2)
    for other in (torch.int32, torch.uint8, torch.float32):
        assert torch.equal(of_codes.decode([z.to(other)]), of_codes.decode([z]))
    for wrong in (z + 0.5, z - 1, z + 1):
        with pytest.raises(
            ValueError, match="latent 0 has other values than 2d_run's codes, whole numbers from 0 to 4"
        ):
            of_codes.decode([wrong])
    assert torch.equal(of_codes.at_noise([z - 10])[0], torch.zeros_like(z)), "noise is any number"


LABELS = [np.int64(1), [np.int64(1), np.int32(1)], np.array([1, 1]), torch.tensor([1, 1]), "b"]


@pytest.mark.parametrize("labels", LABELS)
def test_labels_are_numbers_of_any_kind(labels: Any) -> None:
    told = checked_labels(labels, 2, "run", ("a", "b"))
    assert told is not None and told.tolist() == [1, 1] and told.dtype == torch.int64
    with pytest.raises(ValueError, match=r"run has no class 2; there are 2, counted from 0: a, b"):
        checked_labels(np.int64(2), 2, "run", ("a", "b"))
    with pytest.raises(TypeError, match=r"labels are 1\.5; give the number or the name of a class, or one for each"):
        checked_labels(1.5, 2, "run", ("a", "b"))  # type: ignore[arg-type]


def test_weights_are_averaged_or_raw(folder: Path) -> None:
    with pytest.raises(ValueError, match="weights is 'ema'; use averaged or raw"):
        lvae_torch.load_run("2d_run", runs=folder / "runs", weights="ema")  # type: ignore[arg-type]


def test_a_device_of_torch_is_a_device(folder: Path) -> None:
    on = lvae_torch.load_run(
        "2d_run", runs=folder / "runs", device=torch.device("cpu"), settings="synthesis.batch_size=3"
    )
    assert on.device == torch.device("cpu") and on.settings.synthesis.batch_size == 3, "one setting is one of several"


@pytest.mark.parametrize(("shape", "levels", "message"), [
    ((1, 8), 2, r"image_shape is \(1, 8\); give three whole numbers above 0, \(C, H, W\)"),
    ((1, 8, 8.0), 2, r"image_shape is \(1, 8, 8\.0\); give three"),
    ((1, 0, 8), 2, r"image_shape is \(1, 0, 8\); give three"),
    (8, 2, r"image_shape is 8; give three"),
    ((1, 8, 8), 1, "levels is 1; give the values that a pixel can have, 2 or more, or 0"),
    ((1, 8, 8), -2, "levels is -2; give"),
    ((1, 8, 8), 2.0, "levels is 2.0; give"),
])  # fmt: skip
def test_new_models_are_of_images(shape: Any, levels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lvae_torch.build_model("ladder", shape, levels)
    assert lvae_torch.build_model("ladder", np.array([1, 8, 8]), levels=np.int64(2))  # type: ignore[arg-type]


def test_names_that_begin_with_a_digit_are_names(folder: Path) -> None:
    """Of runs, for all that ``load_run`` hands on as settings."""
    with pytest.raises(CfgError, match=r"prior_run = 2d_run: the latents of run 2d_run are no codes"):
        lvae_torch.load_run("2d_run", runs=folder / "runs", prior="2d_run")
    with pytest.raises(CfgError, match=r"device"):
        lvae_torch.load_run("2d_run", runs=folder / "runs", device="2d")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"checkpoint"):
        lvae_torch.load_run("2d_run", runs=folder / "runs", checkpoint="2nd")  # type: ignore[arg-type]
    assert lvae_torch.load_run("2d_run", runs=folder / "runs", checkpoint=np.int64(2)).step == 2  # type: ignore[arg-type]


def test_a_folder_that_no_run_may_be_called_is_told(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "runs" / "2d_run", tmp_path / "my run")
    with pytest.raises(CfgError, match=r"my run: its name, which is the run's, is 'my run'; use 1 to 128 letters"):
        lvae_torch.load_run(tmp_path / "my run")


@pytest.mark.parametrize(("n_levels", "wanted"), [
    (65_536, [0, 25_700, 65_535]), (1000, [0, 392, 999]), (256, [0, 100, 255]), (32, [0, 12, 31]), (2, [0, 0, 1]),
])  # fmt: skip
def test_white_is_the_highest_level(tmp_path: Path, n_levels: int, wanted: list[int]) -> None:
    """Above 256 levels the nearest one; below, as many of the 256 go to each."""
    Image.fromarray(np.array([[0, 100, 255]], np.uint8)).save(tmp_path / "a.png")
    fit = Fit(PictureFit((1, 1, 3)), n_levels, make_preprocess(DataSection(dataset="any"), n_levels), knows_dump=True)
    x = fit.of_file(tmp_path / "a.png")
    assert (x * (n_levels - 1)).round().flatten().tolist() == wanted
    assert x.flatten()[-1] == 1.0
