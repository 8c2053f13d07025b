"""Checkpoints under foreign files, full disks and kills."""

import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_checkpoints import assert_whole, names, no_warning, pair, saved, state_of

from lvae_torch.errors import DataError
from lvae_torch.files import sha256_of
from lvae_torch.runs.checkpoints import CheckpointStore


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
    longest = 0.02  # seconds to the kill: more where a child needs longer to save anything, so no machine is too slow
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
        longest *= 0.9 if found > newest else 1.3
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
