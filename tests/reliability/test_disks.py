"""Full and read-only disks: one message that says what to do, and what was there stays."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import small
from faults import Figure, Place, fill, small_disk
from nursery import Child, Nursery

from lvae_torch.data.dump import Dump, Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.errors import DataError

pytestmark = pytest.mark.slow

WIDE = {"model__widths": [3000]}  # a checkpoint of some megabytes


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "96m") as folder:
        yield folder


@pytest.fixture
def on_disk(nursery: Nursery, disk: Path) -> Place:
    """A place on a small disk."""
    small.write_dump(disk / "dumps")
    return Place.make(nursery, disk)


def assert_refused(child: Child, *words: str) -> None:
    assert child.wait() == 3, child.said
    assert "Traceback" not in child.said and all(word in child.said for word in words), child.said


@pytest.mark.parametrize("leave", [0, 4096, 20_000, 2_000_000], ids=lambda leave: f"{leave} bytes free")
def test_a_full_disk_during_a_checkpoint(on_disk: Place, figure: Figure, leave: int) -> None:
    place = on_disk
    for steps in (4, 8):
        place.finish("whole", train__steps=steps, **WIDE)
    place.finish("small", train__steps=4, **WIDE)
    filler = fill(place.folder, leave)
    child = place.start("small", train__steps=8, **WIDE)
    assert_refused(child, "No space left on device", "ree some space")
    if leave == 2_000_000:
        assert "A checkpoint of this run takes" in child.said
    assert place.newest_step("small") == 4
    filler.unlink()
    place.finish("small", train__steps=8, **WIDE)
    place.assert_same("whole", "small")
    figure(
        f"disk full while training, {leave:,} bytes free",
        "one message, old files whole, equal to the bit when there is room",
    )


def test_a_full_disk_during_a_dump(disk: Path, figure: Figure) -> None:
    small.write_dump(disk)
    before = {path.name: path.read_bytes() for path in (disk / "small").iterdir()}
    fill(disk, 300_000)
    images = np.zeros((1000, 32, 32, 3), dtype=np.uint8)
    with (
        pytest.raises(DataError, match=r"train_0000\d\.npy: cannot be written \(.* written\)\. Free some space"),
        DumpWriter(disk, "small", Layout((3, 32, 32), 256), {}, shard_bytes=200_000) as writer,
    ):
        writer.add("train", images)
    Dump.open(disk, "small").verify()
    assert {path.name: path.read_bytes() for path in (disk / "small").iterdir()} == before
    assert sorted(path.name for path in disk.iterdir() if path.name != "filler") == [".small.lock", "small"]
    figure("disk full while dumping", "one message, the old dump is whole, nothing is left beside it")


@pytest.mark.parametrize(
    "mode", ["likelihood", "div_stats", "encoding", "generation", "reconstruction", "decoding", "layer_inspection"]
)
def test_a_full_disk_during_synthesis(on_disk: Place, figure: Figure, mode: str) -> None:
    place = on_disk
    place.finish("small", cfg="small")
    if mode == "decoding":
        assert place.start("small", "small", command="synthesize", modes=["encoding"]).wait() == 0
    for leave in (0, 4096):
        filler = fill(place.folder, leave)
        child = place.start("small", "small", command="synthesize", modes=[mode])
        assert_refused(child)
        assert not (place.run("small").synthesis(mode) / "metrics.json").exists()
        filler.unlink()
    again = place.start("small", "small", command="synthesize", modes=[mode])
    assert again.wait() == 0, again.said
    figure(f"disk full in {mode}", "one message each with 0 and 4,096 bytes free; goes on when there is room")


@pytest.mark.parametrize("command", ["train", "synthesize", "first training"])
def test_a_read_only_run_folder(on_disk: Place, figure: Figure, command: str) -> None:
    place = on_disk
    if command != "first training":
        place.finish("small", train__steps=4)
    subprocess.run(["mount", "-o", "remount,ro", str(place.folder)], check=True)
    kind = "synthesize" if command == "synthesize" else "train"
    arguments = place.arguments("small", train__steps=8)
    child = place.nursery.start(kind, arguments, place.folder.parent / "read_only.log")
    assert_refused(child, "Read-only file system", "small")
    figure(f"read-only run folder, {command}", "one message")


def test_a_read_only_dump(nursery: Nursery, disk: Path, tmp_path: Path, figure: Figure) -> None:
    """Training and using need to write nothing there."""
    small.write_dump(disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    place = Place.make(nursery, tmp_path)
    place.finish("small", data__dumps=str(disk))
    child = place.start("small", command="synthesize", modes=["likelihood"], data__dumps=str(disk))
    assert child.wait() == 0, child.said
    figure("read-only dump folder", "trains and synthesizes")
