"""A dump whose name another one takes is kept, unless that one is made from the same or its removal is asked for."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_scripts.arrays import of_array, write_arrays
from data_scripts.recipe import Recipe, Request
from lvae_torch.data.dump import Dump, Layout
from lvae_torch.data.making import write_dump
from lvae_torch.data.writing import DumpWriter


def write(folder: Path, images: np.ndarray, said: dict[str, Any], replace: bool = False) -> None:
    with DumpWriter(folder, "mine", Layout((1, 4, 4), 256), said, replace=replace) as writer:
        writer.add("train", images)


def pictures(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (5, 4, 4, 1)).astype(np.uint8)


def kept(folder: Path, name: str = "mine") -> bool:
    return bool((Dump.open(folder, name).split("train").gather(np.arange(5)).numpy() == pictures(0)).all())


@pytest.mark.parametrize(
    ("seed", "said", "told"),
    [
        (1, {"pictures": "b"}, r"other pictures\)"),
        (0, {"pictures": "b"}, r"other pictures\)"),
        (1, {"pictures": "a"}, r"other images\)"),
        (1, {"pictures": "a", "limit": "3"}, r"other limit\)"),
    ],
)
def test_what_was_made_from_something_else_is_kept(
    tmp_path: Path, seed: int, said: dict[str, Any], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = {"pictures": "a", "left_out": "2 damaged pictures"}
    write(tmp_path, pictures(0), first)
    write(tmp_path, pictures(seed), said)
    assert Dump.open(tmp_path, "mine").provenance == said
    if seed == 0:  # the same images: nothing would be lost
        assert folders(tmp_path) == ["mine"] and not capsys.readouterr().err
        return
    assert re.search(told + r"; it is kept as mine\.earlier1\. With --replace", capsys.readouterr().err)
    assert kept(tmp_path, "mine.earlier1") and Dump.open(tmp_path, "mine.earlier1").provenance == first
    write(tmp_path, pictures(2), {"pictures": "c"})
    assert folders(tmp_path) == ["mine", "mine.earlier1", "mine.earlier2"]
    write(tmp_path, pictures(3), {"pictures": "d"}, replace=True)
    assert folders(tmp_path) == ["mine", "mine.earlier1", "mine.earlier2"] and kept(tmp_path, "mine.earlier1")
    assert Dump.open(tmp_path, "mine").provenance == {"pictures": "d"}


def folders(dumps: Path) -> list[str]:
    return sorted(path.name for path in dumps.iterdir() if path.is_dir() and not path.name.startswith("."))


def test_the_same_can_be_made_again(tmp_path: Path) -> None:
    write(tmp_path, pictures(0), {"pictures": "a"})
    write(tmp_path, pictures(0), {"pictures": "a"})
    (tmp_path / "mine" / "dataset.json").write_text("{")
    write(tmp_path, pictures(0), {"pictures": "other"})  # what nobody can read is lost already
    assert kept(tmp_path)


def by_writer(request: Request) -> str:
    with request.writer("mine", Layout((1, 4, 4), 256), {"from": request.source}) as writer:
        writer.add("train", pictures(len(str(request.source))))
    return "mine"


def by_arrays(request: Request) -> str:
    splits = {"train": of_array(pictures(len(str(request.source))))}
    return write_arrays(request, "mine", Layout((1, 4, 4), 256), {"from": request.source}, splits)


@pytest.mark.parametrize("make", [by_writer, by_arrays])
def test_every_recipe_takes_replace(
    make: Callable[[Request], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe("r", "5", "4x4", "none", "1 KB", "none", make)
    recipe.make(Request(tmp_path, source="a"))
    recipe.make(Request(tmp_path, source="bb", options={"replace": True}))
    assert folders(tmp_path) == ["mine"] and "kept" not in capsys.readouterr().err
    recipe.make(Request(tmp_path, source="ccc"))
    assert Dump.open(tmp_path, "mine").provenance["from"] == "ccc"
    assert Dump.open(tmp_path, "mine.earlier1").provenance["from"] == "bb"
    assert "made from something else (other from); it is kept as mine.earlier1" in capsys.readouterr().err


LABELS = np.arange(5)


@pytest.mark.parametrize(
    ("split", "labels", "names", "told"),
    [
        ("train", LABELS[::-1].copy(), ["a", "b"], "other labels"),
        ("train", None, ["a", "b"], "other labels"),
        ("train", LABELS, ["b", "a"], "other label_names"),
        ("train", LABELS, [], "other label_names"),
        ("test", LABELS, ["a", "b"], "other splits, labels"),
    ],
)
def test_other_labels_of_the_same_pixels_are_kept(
    split: str,
    labels: np.ndarray | None,
    names: list[str],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Or other names of them, or another split."""
    for _ in "again":  # the same, whose labels are the same, too
        write_dump("mine", {"train": (pictures(0), LABELS)}, tmp_path, label_names=["a", "b"])
    assert folders(tmp_path) == ["mine"] and not capsys.readouterr().err
    write_dump("mine", {split: (pictures(0), labels)}, tmp_path, label_names=names)
    assert f"made from something else ({told}); it is kept as mine.earlier1" in capsys.readouterr().err
    before = Dump.open(tmp_path, "mine.earlier1")
    assert before.labels("train").tolist() == LABELS.tolist() and before.label_names == ("a", "b")
    now = Dump.open(tmp_path, "mine").labels(split)
    assert now is None if labels is None else now.tolist() == labels.tolist()


def test_a_dump_that_gets_labels_loses_nothing(tmp_path: Path) -> None:
    write_dump("mine", {"train": pictures(0)}, tmp_path)
    write_dump("mine", {"train": (pictures(0), LABELS)}, tmp_path, label_names=["a"])
    assert folders(tmp_path) == ["mine"] and Dump.open(tmp_path, "mine").labels("train").tolist() == LABELS.tolist()
