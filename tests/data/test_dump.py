"""Dumps: what is written comes back, damage is named, and a half dump is never read as a whole one."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lvae_torch.data.dump import Dump, Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.errors import CfgError, DataError

SHAPE = (3, 4, 5)  # (C, H, W)


def random_images(n: int, seed: int = 0) -> np.ndarray:
    channels, height, width = SHAPE
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, channels), dtype=np.uint8)


@pytest.fixture
def images() -> np.ndarray:
    return random_images(25)


@pytest.fixture
def dumps(tmp_path: Path, images: np.ndarray) -> Path:
    """A dump ``x`` of 25 + 4 images in shards of 10, whose additions do not fit the shards."""
    with DumpWriter(tmp_path, "x", Layout(SHAPE, 256), {"source": "dice"}, shard_bytes=10 * 60) as writer:
        for part in np.array_split(images, [3, 4, 21]):
            writer.add("train", part)
        writer.add("test", images[:4])
    return tmp_path


def description(dumps: Path) -> dict[str, Any]:
    return json.loads((dumps / "x" / "dataset.json").read_text())


def test_what_is_written_comes_back(dumps: Path, images: np.ndarray) -> None:
    dump = Dump.open(dumps, "x")
    assert (dump.layout, dump.image_shape, dump.n_levels) == (Layout(SHAPE, 256), SHAPE, 256)
    assert dump.provenance == {"source": "dice"}
    assert dump.counts == {"train": 25, "test": 4}
    assert [shard.count for shard in dump.shards["train"]] == [10, 10, 5]
    assert np.array_equal(dump.split("train").gather(np.arange(25)).numpy(), images)
    dump.verify()


def test_anyone_can_open_the_shards_and_check_them(dumps: Path, images: np.ndarray) -> None:
    shards = description(dumps)["splits"]["train"]["shards"]
    arrays = [np.load(dumps / "x" / shard["file"], allow_pickle=False) for shard in shards]
    assert np.array_equal(np.concatenate(arrays), images)
    for shard in shards:
        assert hashlib.sha256((dumps / "x" / shard["file"]).read_bytes()).hexdigest() == shard["sha256"]


def test_gather_keeps_the_order_asked_for_over_shards(dumps: Path, images: np.ndarray) -> None:
    split = Dump.open(dumps, "x").split("train")
    for indices in ([24], [], [9, 10, 0, 24, 10, 10], np.random.default_rng(1).permutation(25)):
        indices = np.asarray(indices, dtype=np.int64)
        assert np.array_equal(split.gather(indices).numpy(), images[indices])


def test_limit_shows_the_first_images_only(dumps: Path) -> None:
    split = Dump.open(dumps, "x").split("train", limit=12)
    assert len(split) == 12
    for wrong in (12, -1):
        with pytest.raises(AssertionError):
            split.gather(np.array([0, wrong]))
    assert len(Dump.open(dumps, "x").split("train", limit=99)) == 25


def test_the_content_hash_is_of_the_images_and_nothing_else(dumps: Path, images: np.ndarray) -> None:
    def remade(provenance: dict[str, str], last: int) -> str:
        with DumpWriter(dumps, "y", Layout(SHAPE, 256), provenance, shard_bytes=10 * 60) as writer:
            writer.add("train", images)
            changed = images[:4].copy()
            changed[-1, -1, -1, -1] += last
            writer.add("test", changed)
        return Dump.open(dumps, "y").content_hash

    first = Dump.open(dumps, "x").content_hash
    assert remade({"made": "elsewhere"}, 0) == first
    assert remade({}, 1) != first


def test_a_missing_dump_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"lvae data cifar10_vdvae --dumps {tmp_path}$"):
        Dump.open(tmp_path, "cifar10_vdvae")
    with pytest.raises(DataError, match=rf"lvae data DATASET --name mine --dumps {tmp_path}, with a DATASET of --list"):
        Dump.open(tmp_path, "mine")


def test_a_missing_split_names_those_there_are(dumps: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'valid'; it has train, test"):
        Dump.open(dumps, "x").split("valid")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "-x"])
def test_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(CfgError):
        Dump.open(tmp_path, name)
    with pytest.raises(CfgError):
        DumpWriter(tmp_path, name, Layout(SHAPE, 256), {})
    with DumpWriter(tmp_path, "x", Layout(SHAPE, 256), {}) as writer:
        writer.add("train", random_images(1))
        with pytest.raises(CfgError):
            writer.add(name, random_images(1))


def first_shard(d: dict[str, Any]) -> dict[str, Any]:
    return d["splits"]["train"]["shards"][0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.update(version=1), "of version 1, this program reads 2"),
        (lambda d: d.pop("version"), "of version None"),
        (lambda d: d.pop("n_levels"), "n_levels"),
        (lambda d: d.update(n_levels=300), "300 levels"),
        (lambda d: d.update(image_shape=[1, 28]), "not enough values"),
        (lambda d: d.update(image_shape=[3, 0, 5]), r"\(3, 0, 5\)"),
        (lambda d: d.update(splits=[]), "not a description"),
        (lambda d: d["splits"]["train"].update(count=24), "'train': 24"),
        (lambda d: d["splits"]["train"].update(shards=[], count=0), "'train': 0"),
        (lambda d: first_shard(d).update(file="../../secret.npy"), "a shard is '../../secret.npy'"),
        (lambda d: first_shard(d).update(sha256="0" * 64), "content_hash"),
        (lambda d: d.update(n_levels=255), "its sha256"),
        (lambda d: d.update(sha256="0" * 64), "its sha256"),
    ],
)
def test_a_wrong_description_is_named(dumps: Path, change: Callable[[dict[str, Any]], Any], told: str) -> None:
    wrong = description(dumps)
    change(wrong)
    (dumps / "x" / "dataset.json").write_text(json.dumps(wrong))
    with pytest.raises(DataError, match=rf"x/dataset\.json.*{told}.*[Mm]ake the dump again"):
        Dump.open(dumps, "x")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff"])
def test_a_description_that_is_none_is_named(dumps: Path, text: str) -> None:
    (dumps / "x" / "dataset.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"x/dataset\.json"):
        Dump.open(dumps, "x")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"\0"),
        lambda path: path.write_bytes(b"junk" * 99),
        lambda path: np.save(path, np.zeros((10, 4, 5, 3), dtype=np.int8)),
        lambda path: np.save(path, np.zeros((9, 4, 5, 3), dtype=np.uint8)),
        lambda path: np.save(path, np.array([{"a": 1}]), allow_pickle=True),
        lambda path: path.write_bytes(path.read_bytes().replace(b"'descr'", bytes(7))),
        lambda path: path.write_bytes(path.read_bytes().replace(b"}", b"(")),
    ],
)
def test_a_damaged_shard_is_named_on_opening(dumps: Path, damage: Callable[[Path], Any]) -> None:
    damage(dumps / "x" / "train_00001.npy")
    with pytest.raises(DataError, match=r"train_00001\.npy.*Make the dump again"):
        Dump.open(dumps, "x")


def test_a_flipped_bit_is_found_by_verify(dumps: Path) -> None:
    path = dumps / "x" / "train_00002.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"train_00002\.npy"):
        Dump.open(dumps, "x").verify()


def test_only_fitting_images_are_taken(tmp_path: Path) -> None:
    with DumpWriter(tmp_path, "x", Layout(SHAPE, 2), {}) as writer:
        writer.add("train", random_images(2) % 2)
        for wrong in (random_images(2), np.zeros((2, 4, 5, 3)), np.zeros((2, 3, 4, 5), dtype=np.uint8)):
            with pytest.raises(DataError, match="x: "):
                writer.add("train", wrong)


def test_an_empty_dump_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"), DumpWriter(tmp_path, "x", Layout(SHAPE, 256), {}) as writer:
        writer.add("train", random_images(0))
    assert not (tmp_path / "x").exists()


def test_an_error_leaves_the_old_dump_and_nothing_else(dumps: Path, images: np.ndarray) -> None:
    with pytest.raises(KeyError), DumpWriter(dumps, "x", Layout(SHAPE, 256), {}, shard_bytes=60) as writer:
        writer.add("train", random_images(5, seed=2))
        raise KeyError
    assert np.array_equal(Dump.open(dumps, "x").split("test").gather(np.arange(4)).numpy(), images[:4])
    assert [path.name for path in dumps.iterdir() if path.is_dir()] == ["x"]


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from lvae_torch.data.dump import Layout
from lvae_torch.data.writing import DumpWriter
with DumpWriter(Path(sys.argv[1]), sys.argv[2], Layout((3, 4, 5), 256), {}, shard_bytes=60) as writer:
    writer.add("train", np.zeros((7, 4, 5, 3), dtype=np.uint8))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_no_half_dump_and_no_lock(dumps: Path, images: np.ndarray, repository: Path) -> None:
    for name in ("x", "new"):
        killed = subprocess.run([sys.executable, "-c", KILLED, dumps, name], cwd=repository, timeout=60)
        assert killed.returncode == -signal.SIGKILL
    Dump.open(dumps, "x").verify()
    with pytest.raises(DataError, match="no dump of that name"):
        Dump.open(dumps, "new")
    with DumpWriter(dumps, "new", Layout(SHAPE, 256), {}) as writer:
        writer.add("train", images)
    assert Dump.open(dumps, "new").counts == {"train": 25}
    assert not (dumps / ".new.unfinished").exists()


def test_a_kill_between_two_renames_is_mended(dumps: Path, images: np.ndarray) -> None:
    """As the old dump is moved away, and the new one not yet in its place."""
    (dumps / "x").rename(dumps / ".x.old")
    with pytest.raises(KeyError), DumpWriter(dumps, "x", Layout(SHAPE, 256), {}):
        raise KeyError
    assert np.array_equal(Dump.open(dumps, "x").split("test").gather(np.arange(4)).numpy(), images[:4])
    assert [path.name for path in dumps.iterdir() if path.is_dir()] == ["x"]


def test_two_at_once_do_not_mix(tmp_path: Path, images: np.ndarray) -> None:
    with DumpWriter(tmp_path, "x", Layout(SHAPE, 256), {}) as first:
        first.add("train", images[:5])
        with pytest.raises(DataError, match="another process is making the dump x"):
            DumpWriter(tmp_path, "x", Layout(SHAPE, 256), {}).__enter__()
        first.add("train", images[5:])
    assert np.array_equal(Dump.open(tmp_path, "x").split("train").gather(np.arange(25)).numpy(), images)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/\.x\.lock: cannot be written"):
        DumpWriter(tmp_path / "file", "x", Layout(SHAPE, 256), {}).__enter__()


def test_a_full_disk_is_told_and_nothing_is_left(
    dumps: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    with DumpWriter(dumps, "x", Layout(SHAPE, 256), {}) as writer:
        writer.add("train", images)
        with monkeypatch.context() as patch, pytest.raises(DataError, match="No space left on device"):
            patch.setattr(os, "fsync", full)
            writer._finish()
        # There is room again: leaving the block writes what was not written.
    assert Dump.open(dumps, "x").counts == {"train": 25}


def test_the_writer_keeps_one_shard_in_memory(tmp_path: Path, images: np.ndarray) -> None:
    with DumpWriter(tmp_path, "x", Layout(SHAPE, 256), {}, shard_bytes=10 * 60) as writer:
        buffer = images.copy()
        for _ in range(40):
            writer.add("train", buffer)
            buffer[:] = 0  # the caller may use its memory again
            assert all(pending.images.nbytes <= 600 for pending in writer._pending.values())
            buffer[:] = images
    assert np.array_equal(
        Dump.open(tmp_path, "x").split("train").gather(np.arange(1000)).numpy(), np.tile(images, (40, 1, 1, 1))
    )
