"""Encodings that people wrote by hand: decoded as they are, or refused with the file and what is wrong with it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from two_stages import IMAGES, settings, write_colours

from lvae_torch.errors import DataError
from lvae_torch.files import read_json, write_json
from lvae_torch.synthesis.parts import read_part
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train

SHAPES = [[3, 1, 1], [2, 2, 2]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encodings")
    small.write_dump(folder / "dumps")
    train(small.settings(folder, train__steps=1))
    synthesize(small.settings(folder), ["encoding"])
    return folder


@pytest.fixture
def made(trained: Path, tmp_path: Path) -> Path:
    """Four images in two parts, with names."""
    folder = tmp_path / "enc"
    folder.mkdir()
    index = read_json(trained / "runs" / "small" / "synthesis" / "encoding" / "index.json")
    owner = {key: index[key] for key in ("run", "step", "weights", "trained_on")}
    write_json(folder / "index.json", {**owner, "latent_shapes": SHAPES, "parts": ["a.npz", "b.npz"]})
    for name, first in (("a", 0), ("b", 2)):
        write_part(folder / f"{name}.npz", first)
    (folder / "names.txt").write_text("".join(f"{k}\tx/{k}.png\n" for k in range(4)))
    return folder


def write_part(path: Path, first: int = 0, n: int = 2, **changed: Any) -> None:
    arrays: dict[str, Any] = {"indices": np.arange(first, first + n)}
    arrays |= {f"z.{i}": np.ones((n, *shape), np.float32) for i, shape in enumerate(SHAPES)} | changed
    np.savez(path, allow_pickle=False, **{key: array for key, array in arrays.items() if array is not None})


def decoded(trained: Path, folder: Path) -> Path:
    synthesize(small.settings(trained, synthesis__source=str(folder), synthesis__save_singles=True), ["decoding"])
    return trained / "runs" / "small" / "synthesis" / "decoding"


def test_a_folder_made_by_hand_is_decoded(trained: Path, made: Path) -> None:
    out = decoded(trained, made)
    run = small.opened(small.settings(trained))
    z = [np.ones((1, *shape), np.float32) for shape in SHAPES]
    wanted = run.decode([torch.from_numpy(layer) for layer in z])[0, 0].numpy()
    images = read_part(out / "part_00000.npz")["images"]
    assert np.abs(images[1, ..., 0] / 255 - wanted).max() < 0.003
    assert {path.name for path in (out / "singles").iterdir()} == {f"x_{k}.png" for k in range(4)}
    (made / "names.txt").unlink()
    assert {path.name for path in (decoded(trained, made) / "singles").iterdir()} == {f"00000{k}.png" for k in range(4)}


def index(key: str, value: Any) -> Callable[[Path], None]:
    """Give the index another value, or leave the key out."""

    def spoil(folder: Path) -> None:
        known = read_json(folder / "index.json")
        known.pop(key, None)
        write_json(folder / "index.json", known if value is None else {**known, key: value})

    return spoil


def part(**changed: Any) -> Callable[[Path], None]:
    return lambda folder: write_part(folder / "b.npz", 2, **changed)


def names(text: str) -> Callable[[Path], None]:
    return lambda folder: bool((folder / "names.txt").write_text(text)) and None


INDEX, PART, NAMES = r"index\.json: ", r"b\.npz: ", r"names\.txt: "
SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no object": (lambda folder: (folder / "index.json").write_text(json.dumps([1])), f"{INDEX}.*object"),
    "no parts": (index("parts", None), f"{INDEX}parts .* list"),
    "parts of nothing": (index("parts", []), f"{INDEX}parts .* list"),
    "parts that are no text": (index("parts", [1]), f"{INDEX}parts .* list"),
    "kept of too few layers": (index("kept", [[0]]), f"{INDEX}kept .*2 layers"),
    "kept is a number": (index("kept", 3), f"{INDEX}kept "),
    "kept beyond": (index("kept", [[0, 3], [0]]), f"{INDEX}kept .*layer 0.*0 to 2"),
    "kept in another order": (index("kept", [[1, 0], [0]]), f"{INDEX}kept .*layer 0.*ascending"),
    "no indices": (part(indices=None), f"{PART}.*indices"),
    "indices of text": (part(indices=np.array(["a", "b"])), f"{PART}.*indices"),
    "indices of fractions": (part(indices=np.array([0.5, 1.5])), f"{PART}.*indices"),
    "indices of two axes": (part(indices=np.zeros((2, 1), int)), f"{PART}.*indices"),
    "no images": (part(n=0), f"{PART}.*indices"),
    "z of text": (part(**{"z.0": np.full((2, 3, 1, 1), "a")}), f"{PART}.*z.0"),
    "names without tabs": (names("0 a\n1 b\n"), f"{NAMES}line 1"),
    "names without numbers": (names("0\ta\nb\tb\n"), f"{NAMES}line 2"),
    "too few names": (names("0\ta\n1\tb\n2\tc\n"), f"{NAMES}.*no name .*image 3"),
    "a number twice": (names("0\ta\n0\tb\n2\tc\n3\td\n"), f"{NAMES}line 2"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_wrong_with_a_folder_is_told(trained: Path, made: Path, what: str) -> None:
    spoil, message = SPOILT[what]
    spoil(made)
    out = trained / "runs" / "small" / "synthesis" / "decoding"
    shutil.rmtree(out, ignore_errors=True)
    with pytest.raises(DataError, match=message) as told:
        decoded(trained, made)
    assert str(made) in str(told.value)


def test_codes_that_the_model_does_not_have_are_told(tmp_path: Path) -> None:
    """They would be looked up beyond the codebook."""
    write_colours(tmp_path)
    train(settings(tmp_path, IMAGES, train__steps=1))
    synthesize(settings(tmp_path, IMAGES), ["encoding"])
    encoding = tmp_path / "runs" / "images" / "synthesis" / "encoding"
    name = read_json(encoding / "index.json")["parts"][0]
    arrays = read_part(encoding / name)
    for code in (6, -1):
        z = arrays["z.0"].copy()
        z[1, 0, 0, 1] = code
        np.savez(encoding / "own.npz", allow_pickle=False, **{**arrays, "z.0": z})
        write_json(encoding / "index.json", {**read_json(encoding / "index.json"), "parts": ["own.npz"]})
        with pytest.raises(DataError, match=r"own\.npz: z.0 .* 0 to 5"):
            synthesize(settings(tmp_path, IMAGES), ["decoding"])
