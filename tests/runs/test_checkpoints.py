"""Checkpoints: whole or not there, whatever is killed, filled up or damaged."""

import json
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lvae_torch.errors import DataError
from lvae_torch.files import sha256_of
from lvae_torch.runs.checkpoints import CheckpointStore


def state_of(step: int, version: int = 0) -> dict[str, Any]:
    """A state that tells which step it belongs to in each of its tensors."""
    return {
        "weights": {str(i): torch.full((50, 50), float(1000 * step + 100 * version + i)) for i in range(4)},
        "state": {"step": step, "version": version, "best": 1.5, "done": False, "none": None, "names": ["a", "b"]},
    }


def assert_whole(state: dict[str, Any]) -> int:
    """That nothing in it belongs to another step; its step."""
    step: int = state["state"]["step"]
    expected = state_of(step, state["state"]["version"])
    assert state["state"] == expected["state"]
    assert all(torch.equal(state["weights"][key], value) for key, value in expected["weights"].items())
    return step


def saved(folder: Path, *steps: int, keep: int = 10, best: tuple[int, ...] = ()) -> CheckpointStore:
    store = CheckpointStore(folder, keep)
    for step in steps:
        store.save(step, state_of(step), is_best=step in best)
    store.wait()
    return store


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def pair(step: int) -> list[str]:
    return [f"step_{step:08d}.json", f"step_{step:08d}.pt"]


def no_warning(message: str) -> None:
    pytest.fail(f"unexpected: {message}")


# What is kept


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    state = {
        "model": OrderedDict(w=torch.randn(3, 4, dtype=torch.bfloat16), n=torch.tensor(7), empty=torch.empty(0)),
        "part": torch.arange(10.0)[2:4],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "optimizer": {0: {"betas": (0.9, 0.99)}},
        "text": "ε",
        "numbers": [1, 2.5, True, None, float("inf")],
    }
    store = CheckpointStore(tmp_path / "deep" / "checkpoints")
    store.save(3, state)
    store.wait()
    loaded = store.load(3)
    for key in ("w", "n", "empty"):
        assert loaded["model"][key].dtype == state["model"][key].dtype
        assert torch.equal(loaded["model"][key], state["model"][key])
    assert torch.equal(loaded["part"], torch.tensor([2.0, 3.0])) and loaded["part"].untyped_storage().nbytes() == 8
    assert torch.equal(loaded["parameter"], torch.ones(2)) and type(loaded["parameter"]) is torch.Tensor
    assert loaded["optimizer"] == {0: {"betas": [0.9, 0.99]}}
    assert (loaded["text"], loaded["numbers"]) == (state["text"], state["numbers"])


def test_the_manifest_describes_the_file(tmp_path: Path) -> None:
    saved(tmp_path, 1000, best=(1000,))
    assert names(tmp_path) == pair(1000)
    manifest, path = json.loads((tmp_path / pair(1000)[0]).read_text()), tmp_path / pair(1000)[1]
    assert (manifest["step"], manifest["is_best"]) == (1000, True)
    assert (manifest["size"], manifest["sha256"]) == (path.stat().st_size, sha256_of(path))


def test_training_may_go_on_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, save = threading.Event(), torch.save
    monkeypatch.setattr(torch, "save", lambda *arguments: (go.wait(10), save(*arguments)))
    store, state = CheckpointStore(tmp_path), state_of(1)
    store.save(1, state)  # returns although nothing has been written yet
    state["weights"]["0"].zero_()
    state["state"]["names"].append("c")
    assert store.load_newest(no_warning) is None
    go.set()
    store.wait()
    assert assert_whole(store.load("last")) == 1


def test_the_last_and_the_best_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in range(10, 70, 10):
        store.save(step, state_of(step), is_best=step in (10, 30))
        store.wait()
        best = [10] if step < 30 else [30]
        kept = sorted({*range(max(10, step - 10), step + 10, 10), *best})
        assert names(tmp_path) == sorted(name for step in kept for name in pair(step))
    assert [assert_whole(store.load(which)) for which in ("last", "best", 50)] == [60, 30, 50]
    with pytest.raises(DataError, match=r"no checkpoint 40; there are: 60, 50, 30\."):
        store.load(40)


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    store = saved(tmp_path, 99_999_999, 100_000_000, keep=1)
    assert names(tmp_path) == pair(100_000_000)
    assert assert_whole(store.load("last")) == 100_000_000


def test_no_checkpoints_yet(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "none")
    assert store.load_newest(no_warning) is None
    with pytest.raises(DataError, match="none: no checkpoint 'best'; there are: none"):
        store.load("best")
    with pytest.raises(DataError, match=r"no checkpoint 'best'; there are: 2, 1\."):
        saved(tmp_path, 1, 2).load("best")


def test_the_next_save_removes_what_kills_left_and_nothing_else(tmp_path: Path) -> None:
    others = ["notes.txt", "step_1.pt", "step_00000001_copy.pt", "step_00000004.pt.damaged"]
    for name in [*pair(7)[1:], "step_00000007.json.tmp", "step_00000008.pt.tmp", *others]:
        (tmp_path / name).write_text("x")
    store = CheckpointStore(tmp_path)
    assert store.load_newest(no_warning) is None, "without a manifest it does not count"
    store.save(9, state_of(9))
    store.wait()
    assert names(tmp_path) == sorted([*others, *pair(9)])


def test_a_step_can_be_saved_again(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    for version in range(4):
        store.save(5, state_of(5, version), is_best=version == 3)
        store.wait()
        assert store.load(5)["state"]["version"] == version
        assert len(names(tmp_path)) == 2
    assert store.load("best")["state"]["version"] == 3


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": np.float64(1.5)}, r"state\['a'\] is a float64"),  # its pickle would be refused at load
        ({"a": [1, Path("x")]}, r"state\['a'\]\[1\] is a PosixPath"),
        ({"a": {1, 2}}, r"state\['a'\] is a set"),
        ({np.int64(3): 1}, "state key is a int64"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path, value: dict[Any, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        CheckpointStore(tmp_path).save(1, value)
    assert names(tmp_path) == []


def test_what_was_set_aside_before_stays(tmp_path: Path) -> None:
    """A run that leaves its course again and again, or whose files are damaged again, loses none of them."""
    for version, suffix in enumerate(("", "2", "3")):
        store = CheckpointStore(tmp_path)
        for step in (1, 2):
            store.save(step, state_of(step, version))
        store.wait()
        assert store.set_aside(1) == [2]
        assert f"step_00000002.pt.aside{suffix}" in names(tmp_path)
        store.save(3, state_of(3, version))
        store.wait()
        (tmp_path / pair(3)[1]).write_text(f"torn {version}")
        assert CheckpointStore(tmp_path).load_newest(lambda message: None) is not None
    for version, suffix in enumerate(("", "2", "3")):
        for name in pair(2):
            (tmp_path / f"{name}.aside{suffix}").rename(tmp_path / name)
        assert CheckpointStore(tmp_path).load(2)["state"]["version"] == version
        assert (tmp_path / f"step_00000003.pt.damaged{suffix}").read_text() == f"torn {version}"
