"""A dump of a name that is taken stays, unless it is made from the same or its replacement is asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_scripts.recipe import Recipe, Request
from lvae_torch.data.dump import Dump, Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.errors import DataError


def write(folder: Path, images: np.ndarray, said: dict[str, Any], replace: bool = False) -> None:
    with DumpWriter(folder, "mine", Layout((1, 4, 4), 256), said, replace=replace) as writer:
        writer.add("train", images)


def pictures(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (5, 4, 4, 1)).astype(np.uint8)


def kept(folder: Path) -> bool:
    return bool((Dump.open(folder, "mine").split("train").gather(np.arange(5)).numpy() == pictures(0)).all())


@pytest.mark.parametrize(
    ("seed", "said", "told"),
    [
        (1, {"pictures": "b"}, r"other pictures\)"),
        (0, {"pictures": "b"}, r"other pictures\)"),
        (1, {"pictures": "a"}, r"other images\)"),
        (1, {"pictures": "a", "limit": "3"}, r"other limit\)"),
    ],
)
def test_what_was_made_from_something_else_stays(tmp_path: Path, seed: int, said: dict[str, Any], told: str) -> None:
    write(tmp_path, pictures(0), {"pictures": "a", "left_out": "2 damaged pictures"})
    with pytest.raises(DataError, match=told):
        write(tmp_path, pictures(seed), said)
    assert kept(tmp_path) and sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["mine"]
    write(tmp_path, pictures(seed), said, replace=True)
    assert kept(tmp_path) == (seed == 0) and Dump.open(tmp_path, "mine").provenance == said


def test_the_same_can_be_made_again(tmp_path: Path) -> None:
    write(tmp_path, pictures(0), {"pictures": "a"})
    write(tmp_path, pictures(0), {"pictures": "a"})
    (tmp_path / "mine" / "dataset.json").write_text("{")
    write(tmp_path, pictures(0), {"pictures": "other"})  # what nobody can read is lost already
    assert kept(tmp_path)


def test_every_recipe_takes_replace(tmp_path: Path) -> None:
    def make(request: Request) -> str:
        with request.writer("mine", Layout((1, 4, 4), 256), {"from": request.source}) as writer:
            writer.add("train", pictures(len(str(request.source))))
        return "mine"

    recipe = Recipe("r", "5", "4x4", "none", "1 KB", "none", make)
    recipe.make(Request(tmp_path, source="a"))
    with pytest.raises(DataError, match=r"made from something else \(other from\); it stays. .* give --replace"):
        recipe.make(Request(tmp_path, source="bb"))
    recipe.make(Request(tmp_path, source="bb", options={"replace": True}))
    assert Dump.open(tmp_path, "mine").provenance["from"] == "bb"
