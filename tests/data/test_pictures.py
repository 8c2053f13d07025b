"""Dumps of picture files: the same whoever decodes them, continued after a kill, and told what is wrong with files."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import upstream_pictures
from making import bytes_of, contents
from upstream_pictures import encoded, write_zip

import data_scripts
from data_scripts import decoding, pictures, render
from data_scripts.progress import progress
from lvae_torch.data import writing
from lvae_torch.data.dump import Dump
from lvae_torch.errors import DataError

N = 30
PER_SHARD = 4
SHARD = PER_SHARD * 8 * 8 * 3
MAKE = {"name": "x", "size": "8", "valid": 6}


@pytest.fixture(autouse=True)
def many_small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(writing.SHARD_BYTES, "raw", SHARD)
    monkeypatch.setattr(decoding, "PAGE_IMAGES", 3)


def noise(height: int = 12, width: int = 10, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty pictures, 1.png to 30.png."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for k in range(1, N + 1):
        (folder / f"{k}.png").write_bytes(encoded(noise(seed=k)))
    return folder


def make(folder: Path, dumps: Path, **options: Any) -> dict[str, bytes]:
    data_scripts.make("images", dumps, source=str(folder), **{**MAKE, "replace": True, **options})
    return bytes_of(dumps, "x")


def ended_after(monkeypatch: pytest.MonkeyPatch, n_shards: int) -> pytest.MonkeyPatch:
    """Makes writers fail on the way to the next shard."""
    flush, written = writing.DumpWriter._flush, []

    def failing(self: writing.DumpWriter, split: str) -> None:
        if len(written) == n_shards:
            raise KeyboardInterrupt
        written.append(split)
        flush(self, split)

    monkeypatch.setattr(writing.DumpWriter, "_flush", failing)
    return monkeypatch


def begin(folder: Path, dumps: Path, n_shards: int, **options: Any) -> None:
    """Make a dump up to so many shards, and no further."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        ended_after(patch, n_shards)
        make(folder, dumps, **options)


def rendered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is decoded from now on."""
    names: list[str] = []

    def noted(*arguments: Any) -> Any:
        names.extend(name for name, _ in arguments[3])
        return render.render_into(*arguments)

    monkeypatch.setattr(decoding, "render_into", noted)
    return names


# --- the same bytes, also after a kill --------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = ["tests", "tests/data"]
import test_pictures
from lvae_torch.data import writing
writing.SHARD_BYTES["raw"] = test_pictures.SHARD
flush, left = writing.DumpWriter._flush, [3]
def ending(self, split):
    if not left[0]:
        (self.aside / "train_00003.npy.tmp").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    flush(self, split)
writing.DumpWriter._flush = ending
test_pictures.make(Path(sys.argv[1]), Path(sys.argv[2]), jobs=2)
"""


def test_processes_and_kills_leave_no_trace(
    folder: Path, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, at_once: None
) -> None:
    undisturbed = make(folder, tmp_path / "here")
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "ProcessPoolExecutor", POOL)
        assert make(folder, tmp_path / "one", jobs=1) == undisturbed
        assert make(folder, tmp_path / "two", jobs=2) == undisturbed
    dumps = tmp_path / "killed"
    # Waits for the end of all that write into its pipes: workers must not outlive it.
    command = [sys.executable, "-c", KILLED, str(folder), str(dumps)]
    killed = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with pytest.raises(DataError, match="no dump of that name"):
        Dump.open(dumps, "x")
    done = {path.name: path.stat().st_ino for path in (dumps / ".x.unfinished").glob("train_*.npy")}
    assert sorted(done) == ["train_00000.npy", "train_00001.npy", "train_00002.npy"]
    names = rendered(monkeypatch)
    assert make(folder, dumps) == undisturbed
    assert len(names) == N - 3 * PER_SHARD, "what was on disk is not decoded again"
    assert {name: (dumps / "x" / name).stat().st_ino for name in done} == done
    assert not [path for path in (dumps / ".raw").rglob("*") if path.suffix != ".lock"]


POOL = decoding.ProcessPoolExecutor


@pytest.mark.parametrize("n_shards", [0, 1, 5, 6, 7])
def test_a_dump_is_continued_wherever_it_ended(
    folder: Path, tmp_path: Path, at_once: None, monkeypatch: pytest.MonkeyPatch, n_shards: int
) -> None:
    """The first six shards are of train, in six pieces; the last two are valid's."""
    undisturbed = make(folder, tmp_path / "here")
    begin(folder, tmp_path, n_shards)
    names = rendered(monkeypatch)
    assert make(folder, tmp_path) == undisturbed
    assert len(names) == N - n_shards * PER_SHARD


@pytest.mark.parametrize("change", ["one more", "one less", "another in its place", "other options"])
def test_other_pictures_are_not_mixed_with_those_that_were_begun(
    folder: Path, tmp_path: Path, at_once: None, change: str
) -> None:
    begin(folder, tmp_path, 3)
    options: dict[str, Any] = {}
    if change == "one more":
        (folder / "0.png").write_bytes(encoded(noise(seed=99)))
    elif change == "one less":
        last = (tmp_path / ".x.unfinished" / "train_00002_names.txt").read_text().splitlines()[-1]
        (folder / last).unlink()
    elif change == "another in its place":
        (folder / "1.png").write_bytes(encoded(noise(20, 20, seed=99)))
    else:
        options = {"crop": "none"}
    assert make(folder, tmp_path, **options) == make(folder, tmp_path / "fresh", **options)


def test_an_older_dump_stays_until_the_new_one_is_whole(folder: Path, tmp_path: Path, at_once: None) -> None:
    older = make(folder, tmp_path, grey=True)
    begin(folder, tmp_path, 3)
    assert bytes_of(tmp_path, "x") == older
    assert make(folder, tmp_path) == make(folder, tmp_path / "fresh")


# --- damaged pictures -------------------------------------------------------------------------------------------------


def damage(folder: Path, *numbers: int) -> None:
    for k in numbers:
        path = folder / f"{k}.png"
        path.write_bytes(path.read_bytes()[:-60])


def test_a_damaged_picture_is_named_and_ends_it(folder: Path, tmp_path: Path, at_once: None) -> None:
    damage(folder, 5)
    with pytest.raises(DataError, match=r"mine: damaged pictures:\n  5\.png: .*cut off.*\n.*--skip-damaged N"):
        make(folder, tmp_path)
    with pytest.raises(DataError, match="no dump of that name"):
        Dump.open(tmp_path, "x")
    (folder / "5.png").write_bytes(encoded(noise(seed=5)))
    assert len(contents(tmp_path, "x")["train"].images if make(folder, tmp_path) else ()) == 24


@pytest.mark.parametrize("damaged", [(5, 6), (1, 30), (1, 2, 3, 4), (29, 30)])
def test_some_may_be_left_out(folder: Path, tmp_path: Path, at_once: None, damaged: tuple[int, ...]) -> None:
    """As many as allowed in all the splits together."""
    damage(folder, *damaged)
    with pytest.raises(DataError, match="damaged pictures"):
        make(folder, tmp_path, skip_damaged=len(damaged) - 1)
    make(folder, tmp_path, skip_damaged=len(damaged))
    names = [name for part in contents(tmp_path, "x").values() for name in part.names or ()]
    assert sorted(names) == sorted(f"{k}.png" for k in range(1, N + 1) if k not in damaged)
    assert Dump.open(tmp_path, "x").provenance["left_out"] == f"{len(damaged)} damaged pictures"


@pytest.mark.parametrize("n_shards", [1, 3, 5, 6])
def test_those_left_out_before_a_kill_count(folder: Path, tmp_path: Path, at_once: None, n_shards: int) -> None:
    damage(folder, 2, 9, 17, 26)
    undisturbed = make(folder, tmp_path / "here", skip_damaged=4)
    for allowed in (4, 3):
        dumps = tmp_path / str(allowed)
        begin(folder, dumps, n_shards, skip_damaged=4)
        if allowed == 4:
            assert make(folder, dumps, skip_damaged=4) == undisturbed
        else:
            with pytest.raises(DataError, match="damaged pictures"):
                make(folder, dumps, skip_damaged=3)


def test_a_damaged_jpeg_of_celeba_is_named(small_mirror: Callable[..., Any], tmp_path: Path, at_once: None) -> None:
    whole, _ = small_mirror(upstream_pictures.celeba)
    import zipfile

    with zipfile.ZipFile(whole / "img_align_celeba.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["img_align_celeba/000007.jpg"] = files["img_align_celeba/000007.jpg"][:9000]
    write_zip(tmp_path / "img_align_celeba.zip", files)
    (tmp_path / "list_eval_partition.txt").write_bytes((whole / "list_eval_partition.txt").read_bytes())
    with pytest.raises(DataError, match=r"img_align_celeba\.zip: .*\n  img_align_celeba/000007\.jpg: .*truncated"):
        data_scripts.make("celeba64", tmp_path, source=str(tmp_path))
    data_scripts.make("celeba64", tmp_path, source=str(tmp_path), skip_damaged=1)
    assert Dump.open(tmp_path, "celeba64_addtt").counts == {"train": 7, "valid": 1, "test": 3}


# --- full disks, two at once ------------------------------------------------------------------------------------------


def full(*_: object) -> None:
    raise OSError(28, os.strerror(28))


@pytest.mark.parametrize("where", ["posix_fallocate", "fsync"])
def test_a_full_disk_is_told_and_the_work_kept(
    folder: Path, tmp_path: Path, at_once: None, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    begin(folder, tmp_path, 3)
    with monkeypatch.context() as patch:
        patch.setattr(os, where, full)
        with pytest.raises(DataError, match=r"cannot be written \(No space left on device\)"):
            make(folder, tmp_path)
    with pytest.raises(DataError, match="no dump of that name"):
        Dump.open(tmp_path, "x")
    names = rendered(monkeypatch)
    assert make(folder, tmp_path) == make(folder, tmp_path / "fresh")
    assert len(names) == N - 3 * PER_SHARD + N


@pytest.mark.parametrize("at_once_at_most", [2**20, 1000])
def test_room_is_taken_where_no_call_does_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once_at_most: int
) -> None:
    """As on macOS; a write may take less than it was given."""
    write = os.write
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:at_once_at_most]))
    with open(tmp_path / "pages", "w+b") as file:
        decoding._allocate(file.fileno(), 2**20 + 7)
        assert file.read() == b"" and os.fstat(file.fileno()).st_size == 2**20 + 7
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space left"):
        decoding._allocate(full.fileno(), 7)


def test_two_at_once_make_one(folder: Path, tmp_path: Path, at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one process makes a dump, another that would make the same, or one of the same name, is sent away."""
    refused = []

    def meanwhile(*arguments: Any) -> Any:
        for recipe, options in (("images", MAKE), ("multi_dsprites", {"name": "x", "count": 10})):
            with pytest.raises(DataError, match=r"another process is making (images|the dump x)\."):
                data_scripts.make(recipe, tmp_path, source=str(folder), **options)
            refused.append(recipe)
        return progress(*arguments)

    monkeypatch.setattr(pictures, "progress", meanwhile)
    make(folder, tmp_path)
    assert refused == ["images", "multi_dsprites"] * 2  # for either split


def test_no_names_of_files_are_too_strange(folder: Path, tmp_path: Path, at_once: None) -> None:
    """Line ends, other alphabets, and bytes that are no text at all."""
    strange = ["a\nb.png", "c\u2028d.png", "é.png", os.fsdecode(b"\xe9.png")]
    for k, name in enumerate(strange):
        (folder / name).write_bytes(encoded(noise(seed=100 + k)))
    undisturbed = make(folder, tmp_path / "here", valid=1)
    found = contents(tmp_path / "here", "x")
    assert (len(found["train"].names or ()), len(found["train"].images)) == (N + 3, N + 3)
    for n_shards in range(5, 9):
        begin(folder, tmp_path / str(n_shards), n_shards, valid=1)
        assert make(folder, tmp_path / str(n_shards), valid=1) == undisturbed
