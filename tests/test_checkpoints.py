"""Checkpoints: whole or not there, whatever is killed, filled up or damaged."""

import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable
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


def forked(function: Callable[[], None]) -> int:
    """Process id of a child that calls ``function`` and ends with status 0, or 1 if it raised."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child uses no thread of its parent
        child = os.fork()
    if child:
        return child
    try:
        function()
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


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


# Damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def swap_with_the_one_before(path: Path) -> None:
    before = path.with_name(path.name.replace("3", "2"))
    path.rename(path.with_name("x"))
    before.rename(path)
    path.with_name("x").rename(before)


def use_another_programs(path: Path) -> None:
    path.write_text('{"version": 1}' if path.suffix == ".json" else "a text")


def swap_both(path: Path) -> None:
    for suffix in (".json", ".pt"):
        swap_with_the_one_before(path.with_suffix(suffix))


@pytest.mark.parametrize("suffix", [".pt", ".json"])
@pytest.mark.parametrize("damage", [cut, flip_a_bit, zero, use_another_programs, Path.unlink])
def test_damage_is_named_and_the_one_before_is_used(
    tmp_path: Path, damage: Callable[[Path], None], suffix: str
) -> None:
    saved(tmp_path, 1, 2, 3)
    path = (tmp_path / pair(3)[0]).with_suffix(suffix)
    damage(path)
    if path.exists():
        with pytest.raises(DataError, match=path.stem):
            CheckpointStore(tmp_path).load("last")
    said: list[str] = []
    state = CheckpointStore(tmp_path).load_newest(said.append)
    assert state is not None and assert_whole(state) == 2
    if damage is Path.unlink and suffix == ".json":  # as a kill leaves it
        assert said == []
        return
    assert len(said) == 1 and path.stem in said[0]
    aside = [name + ".damaged" for name in pair(3) if damage is not Path.unlink or not name.endswith(suffix)]
    assert names(tmp_path) == sorted([*pair(1), *pair(2), *aside])
    saved(tmp_path, 3, keep=2)
    assert names(tmp_path) == sorted([*pair(2), *pair(3), *aside])


@pytest.mark.parametrize("swap", [swap_with_the_one_before, swap_both])
def test_swapped_files_are_both_refused(tmp_path: Path, swap: Callable[[Path], None]) -> None:
    saved(tmp_path, 1, 2, 3)
    swap(tmp_path / pair(3)[1])
    said: list[str] = []
    state = CheckpointStore(tmp_path).load_newest(said.append)
    assert state is not None and assert_whole(state) == 1
    assert ["00000003" in said[0], "00000002" in said[1], len(said)] == [True, True, 2]


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    store = saved(tmp_path, 3)
    path = tmp_path / pair(3)[1]
    size = path.stat().st_size
    flip_a_bit(path)
    with pytest.raises(DataError, match=r"step_00000003\.pt: damaged \(its sha256 is not that of what was written\)"):
        store.load("last")
    cut(path)
    with pytest.raises(DataError, match=rf"damaged \({size - 100:,} bytes instead of {size:,}\)"):
        store.load("last")
    path.unlink()
    with pytest.raises(DataError, match=r"damaged \(cannot be read: No such file"):
        store.load("last")


def test_no_flipped_bit_of_a_manifest_goes_unnoticed(tmp_path: Path) -> None:
    """It may change a blank into another, but never what is loaded."""
    store = saved(tmp_path, 3, best=(3,))
    path = tmp_path / pair(3)[0]
    good, generator = path.read_bytes(), random.Random(0)
    for _ in range(200):
        data = bytearray(good)
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        path.write_bytes(data)
        try:
            assert assert_whole(store.load("best")) == 3
        except DataError as error:
            assert "step_00000003" in str(error)


def test_a_run_never_starts_from_nothing_because_all_are_damaged(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    for step in (1, 2):
        zero(tmp_path / pair(step)[1])
    before = names(tmp_path)
    for _ in range(2):  # the second start is refused just as the first
        said: list[str] = []
        with pytest.raises(DataError, match="every checkpoint is damaged, from step 1 to 2"):
            CheckpointStore(tmp_path).load_newest(said.append)
        assert len(said) == 2 and names(tmp_path) == before


def test_a_damaged_manifest_does_not_stop_a_run(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3)
    (tmp_path / pair(2)[0]).write_text("{")
    store = saved(tmp_path, 4, keep=1)
    assert names(tmp_path) == sorted([*pair(2), *pair(4)])
    assert assert_whole(store.load("last")) == 4


@pytest.mark.parametrize("part", ["model", "ema", "optimizer"])
def test_weights_that_are_not_finite_are_named_and_the_one_before_is_used(tmp_path: Path, part: str) -> None:
    bad = {"part": {"w": torch.tensor([1.0, float("nan")]), "n": torch.tensor(3)}}
    store = saved(tmp_path, 1)
    store.save(2, {**state_of(2), part: bad})
    store.wait()
    said: list[str] = []
    state = store.load_newest(said.append)
    assert state is not None and assert_whole(state) == 1
    assert f"step_00000002.pt: damaged ({part}.part.w is not finite)" in said[0]


# Files from elsewhere


class Malicious:
    """Pickles as a call."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def planted(folder: Path, write: Callable[[Path], None]) -> CheckpointStore:
    """A store in which step 2 holds what ``write`` wrote, with a manifest to match."""
    store = saved(folder, 1, 2)
    manifest, path = (folder / name for name in pair(2))
    write(path)
    known = json.loads(manifest.read_text()) | {"size": path.stat().st_size, "sha256": sha256_of(path)}
    manifest.write_text(json.dumps(known))
    return store


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(pickle.dumps(Malicious())),
        lambda path: torch.save({"model": Malicious()}, path),
        lambda path: torch.save(torch.nn.Linear(2, 2), path),
        lambda path: torch.save(torch.ones(2), path),
        lambda path: path.write_bytes(pickle.dumps({"a": 1}, protocol=4)),
        lambda path: np.save(path.with_suffix(".npy"), np.ones(3)) or path.with_suffix(".npy").rename(path),
        lambda path: np.savez(path.with_suffix(".npz"), a=np.ones(3)) or path.with_suffix(".npz").rename(path),
        lambda path: path.write_text("<!DOCTYPE html>"),
        lambda path: path.write_bytes(b""),
    ],
    ids=["pickle", "in a checkpoint", "module", "tensor", "plain pickle", "npy", "npz", "html", "empty"],
)
def test_other_files_are_refused_by_name_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    store = planted(tmp_path / "checkpoints", write)
    with pytest.raises(DataError, match=r"step_00000002\.pt: refused; it is no"):
        store.load("last")
    said: list[str] = []
    state = store.load_newest(said.append)
    assert state is not None and assert_whole(state) == 1
    assert len(said) == 1 and "step_00000002.pt" in said[0]
    assert names(tmp_path) == ["checkpoints"], "the code in the file was run"


# Errors while writing


def test_a_full_disk_is_told_with_the_space_needed_and_loses_nothing(tmp_path: Path) -> None:
    """The limit on file sizes makes the system refuse the write, in the middle of torch's own writing."""
    store = saved(tmp_path, 1)
    big = {"weights": torch.zeros(2**20), "state": {"step": 2}}

    def child() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
        store.save(2, big)
        for _ in range(2):  # told once; then the store can be used again
            try:
                store.wait()
            except DataError as error:
                assert "step_00000002.pt: cannot be written (File too large)" in str(error), error
                assert "takes 4.0 MiB" in str(error), error
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                assert assert_whole(store.load("last")) == 1
                store.save(3, state_of(3))
                continue
            return

    assert os.waitpid(forked(child), 0)[1] == 0
    assert names(tmp_path) == sorted([*pair(1), *pair(3)])
    assert assert_whole(store.load("last")) == 3


def test_an_error_of_the_writing_thread_is_raised_at_the_next_save(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file in the way")
    store = CheckpointStore(tmp_path / "checkpoints")
    store.save(1, state_of(1))
    with pytest.raises(DataError, match=r"checkpoints: cannot be written \(File exists\)"):
        store.save(2, state_of(2))
    (tmp_path / "checkpoints").unlink()
    store.save(3, state_of(3))
    store.wait()
    assert names(tmp_path / "checkpoints") == pair(3)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(path: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    store = saved(tmp_path, 1)
    monkeypatch.setattr(Path, "replace", read_only)
    store.save(2, state_of(2))
    with pytest.raises(DataError, match=r"step_00000002\.pt: cannot be written \(Permission denied\)"):
        store.wait()
    assert names(tmp_path) == pair(1)


# Kills


@pytest.mark.parametrize("keep", [1, 2])
def test_killed_at_any_moment_of_saving(tmp_path: Path, keep: int) -> None:
    """What was whole before the kill, or something newer, is loaded; never half of one and half of another."""
    folder, generator = tmp_path / "checkpoints", random.Random(keep)
    newest = n_progressed = 0
    started = time.monotonic()
    saved(tmp_path / "elsewhere", 1, 2, 3)
    longest = 4 * (time.monotonic() - started)
    for _ in range(40):
        read, write = os.pipe()

        def child(first: int = newest + 1, write: int = write) -> None:
            store = CheckpointStore(folder, keep)
            for step in range(first, first + 1000):
                for version in range(2):  # the same step once more, as after a stop in an evaluation
                    store.save(step, state_of(step, version), is_best=step % 3 == 0)
                    store.wait()
                os.write(write, step.to_bytes(4, "big"))

        process = forked(child)
        os.close(write)
        time.sleep(generator.uniform(0.001, longest))
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        with open(read, "rb") as file:
            told = file.read()
        durable = int.from_bytes(told[-4:], "big") if told else newest
        state = CheckpointStore(folder, keep).load_newest(no_warning)
        found = 0 if state is None else assert_whole(state)
        assert found >= durable >= newest
        n_progressed += found > newest
        newest = found
    assert n_progressed > 5, "the kills came too early to mean anything"


@pytest.mark.parametrize("again", [False, True], ids=["a new step", "the same step again"])
def test_killed_before_each_file_operation(tmp_path: Path, again: bool) -> None:
    """One save, ended before its first file operation, before its second, and so on."""
    n, step = 0, 2 if again else 3
    outcomes = []
    while True:
        n += 1
        folder = tmp_path / str(n)
        saved(folder, 1, 2, keep=2)

        def child(folder: Path = folder, n: int = n) -> None:
            count = 0

            def end_at(event: str, arguments: tuple[Any, ...]) -> None:
                nonlocal count
                is_ours = arguments and str(arguments[0]).startswith(str(folder))
                if event in ("open", "os.rename", "os.remove", "os.mkdir") and is_ours:
                    count += 1
                    if count == n:
                        os._exit(9)

            store = CheckpointStore(folder, keep=1)
            sys.addaudithook(end_at)
            store.save(step, state_of(step, version=1))
            store.wait()

        _, status = os.waitpid(forked(child), 0)
        state = CheckpointStore(folder).load_newest(no_warning)
        assert state is not None
        outcomes.append((assert_whole(state), state["state"]["version"]))
        shutil.rmtree(folder)
        if os.WEXITSTATUS(status) == 0:
            break
        assert os.WEXITSTATUS(status) == 9
    old, new = (2, 0), (step, 1)
    assert n > 8, "too few operations were seen"
    assert outcomes == [old] * outcomes.index(new) + [new] * (n - outcomes.index(new))
