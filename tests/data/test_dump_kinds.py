"""Other kinds of dumps: PNG, labels and names, codes and points; and those that a second process finishes."""

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
from lvae_torch.errors import DataError

HWC = (6, 5, 3)


def some(n: int, hwc: tuple[int, int, int] = HWC, high: int = 256, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(n).integers(0, high, (n, *hwc)).astype(dtype)


def layout(**more: Any) -> Layout:
    return Layout((3, 6, 5), 256, **more)


def write(dumps: Path, kind: Layout, images: np.ndarray, per_shard: int = 4, **more: Any) -> Dump:
    with DumpWriter(dumps, "x", kind, {}, shard_bytes=per_shard * images[:1].nbytes) as writer:
        for part in np.array_split(np.arange(len(images)), 3):
            writer.add("train", images[part], **{key: [value[i] for i in part] for key, value in more.items()})
    return Dump.open(dumps, "x")


# --- pictures as PNG --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_encoded_images_come_back_without_loss(tmp_path: Path, channels: int) -> None:
    images = some(11, (6, 5, channels))
    dump = write(tmp_path, Layout((channels, 6, 5), 256, encoding="png"), images)
    assert [shard.file for shard in dump.shards["train"]] == [f"train_0000{k}.bin" for k in range(3)]
    indices = np.array([10, 0, 4, 4, 3])
    assert np.array_equal(dump.split("train").gather(indices).numpy(), images[indices])
    dump.verify()


def test_anyone_can_read_an_encoded_shard(tmp_path: Path) -> None:
    """As documented: n + 1 offsets of eight bytes, then the PNGs."""
    import io

    from PIL import Image

    images = some(3)
    write(tmp_path, layout(encoding="png"), images)
    data = (tmp_path / "x" / "train_00000.bin").read_bytes()
    offsets = np.frombuffer(data[:32], dtype="<i8")
    for k, image in enumerate(images):
        assert np.array_equal(Image.open(io.BytesIO(data[offsets[k] : offsets[k + 1]])), image)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:10],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: bytes(8) + data[8:],
        lambda data: data[:8] + data[16:24] + data[8:16] + data[24:],
    ],
)
def test_a_damaged_encoded_shard_is_named_on_opening(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    write(tmp_path, layout(encoding="png"), some(5))
    path = tmp_path / "x" / "train_00000.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"train_00000\.bin.*Make the dump again"):
        Dump.open(tmp_path, "x")


def test_a_damaged_picture_is_named_on_reading(tmp_path: Path) -> None:
    split = write(tmp_path, layout(encoding="png"), some(4)).split("train")
    path = tmp_path / "x" / "train_00000.bin"
    data = bytearray(path.read_bytes())
    data[60:100] = bytes(40)  # in the first picture
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"train_00000\.bin: holds a damaged picture"):
        split.gather(np.array([0]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"encoding": "jpeg"},
        {"dtype": "int64"},
        {"dtype": "uint16", "n_levels": 2**17},
        {"dtype": "float32"},
        {"n_levels": 1},
        {"n_levels": 0},
        {"encoding": "png", "image_shape": (2, 6, 5)},
        {"encoding": "png", "dtype": "uint16"},
    ],
)
def test_layouts_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"images|encoding"):
        Layout(**{"image_shape": (3, 6, 5), "n_levels": 256, **wrong})


# --- codes and points -------------------------------------------------------------------------------------------------


def test_codes_of_more_than_8_bits(tmp_path: Path) -> None:
    codes = some(9, (4, 4, 1), 512, np.uint16)
    dump = write(tmp_path, Layout((1, 4, 4), 512, dtype="uint16"), codes)
    assert np.array_equal(dump.split("train").gather(np.arange(9)).numpy(), codes)


def test_points(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(9, 1, 1, 2)).astype(np.float32)
    kind = Layout((2, 1, 1), 0, dtype="float32")
    dump = write(tmp_path, kind, points)
    assert dump.layout == kind
    assert np.array_equal(dump.split("train").gather(np.arange(9)).numpy(), points)
    points[4, 0, 0, 1] = np.nan
    with pytest.raises(
        DataError, match=r"image 4 of split train has nan at row, column and channel .0, 0, 1..*Leave it out"
    ):
        write(tmp_path, kind, points)
    with (
        pytest.raises(DataError, match="image 13 of split train has nan"),
        DumpWriter(tmp_path, "more", kind, {}) as writer,
    ):
        writer.add("train", np.zeros_like(points))
        writer.add("train", points)


# --- labels and names -------------------------------------------------------------------------------------------------


def test_labels_and_names_go_with_the_images(tmp_path: Path) -> None:
    labels = np.arange(11) * 7
    names = [f"folder/né {k}.png" for k in range(10)] + ["two\nlines"]
    dump = write(tmp_path, layout(), some(11), labels=labels, names=names)
    found = dump.labels("train")
    assert found is not None
    assert (found.tolist(), found.dtype) == (labels.tolist(), np.int64)
    assert dump.names("train") == [*names[:10], "two lines"]
    (tmp_path / "x" / "train_00001_names.txt").write_text("other\n")
    with pytest.raises(DataError, match=r"train_00001_names\.txt"):
        dump.verify()


def test_there_may_be_no_labels_and_no_names(tmp_path: Path) -> None:
    dump = write(tmp_path, layout(), some(5))
    assert (dump.labels("train"), dump.names("train")) == (None, None)
    with pytest.raises(DataError, match="no split 'test'"):
        dump.labels("test")


def test_labels_have_no_part_in_the_content_hash(tmp_path: Path) -> None:
    first = write(tmp_path, layout(), some(5), labels=[0] * 5)
    assert write(tmp_path, layout(), some(5), labels=[1] * 5).content_hash == first.content_hash


# --- finished by another process --------------------------------------------------------------------------------------

BEGUN = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = ["tests", "tests/data"]
from test_dump_kinds import begin
begin(Path(sys.argv[1]), sys.argv[2])
os.kill(os.getpid(), signal.SIGKILL)
"""


def continued(dumps: Path, source: str = "a") -> DumpWriter:
    return DumpWriter(dumps, "x", layout(), {"source": source}, shard_bytes=4 * 90, continued=True)


def begin(dumps: Path, source: str) -> None:
    """Write 10 of 20 images, two shards and a half, and never end."""
    writer = continued(dumps, source).__enter__()
    writer.add("train", some(20)[:10], names=[f"{k}.png" for k in range(10)])
    (dumps / ".x.unfinished" / "train_00002.npy.tmp").write_bytes(b"half")


def killed(dumps: Path, repository: Path, source: str = "a") -> None:
    command = [sys.executable, "-c", BEGUN, str(dumps), source]
    assert subprocess.run(command, cwd=repository, timeout=60).returncode == -signal.SIGKILL


def test_a_killed_dump_is_continued_after_its_last_shard(tmp_path: Path, repository: Path) -> None:
    killed(tmp_path, repository)
    with pytest.raises(DataError, match="no dump of that name"):
        Dump.open(tmp_path, "x")
    with continued(tmp_path) as writer:
        assert (writer.count("train"), writer.last_name("train")) == (8, "7.png")
        writer.add("train", some(20)[8:], names=[f"{k}.png" for k in range(8, 20)])
    dump = Dump.open(tmp_path, "x")
    assert np.array_equal(dump.split("train").gather(np.arange(20)).numpy(), some(20))
    assert dump.names("train") == [f"{k}.png" for k in range(20)]
    assert not list(dump.folder.glob("*.tmp"))
    assert not (dump.folder / "unfinished.json").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "train_00001.npy").write_bytes(b"damaged"),
        lambda folder: (folder / "train_00001_names.txt").unlink(),
        lambda folder: (folder / "unfinished.json").write_text("{"),
        lambda folder: (folder / "unfinished.json").unlink(),
    ],
)
def test_what_was_damaged_since_is_made_anew(
    tmp_path: Path, repository: Path, change: Callable[[Path], object]
) -> None:
    killed(tmp_path, repository)
    change(tmp_path / ".x.unfinished")
    with continued(tmp_path) as writer:
        assert (writer.count("train"), writer.last_name("train")) == (0, None)
        writer.add("train", some(2), names=["a", "b"])


def test_what_was_of_other_images_is_made_anew(tmp_path: Path, repository: Path) -> None:
    killed(tmp_path, repository, source="b")
    with continued(tmp_path) as writer:
        assert writer.count("train") == 0
        writer.add("train", some(2), names=["a", "b"])


def test_an_error_leaves_what_can_be_continued(tmp_path: Path) -> None:
    with pytest.raises(KeyError), continued(tmp_path) as writer:
        writer.add("train", some(20)[:10])
        raise KeyError
    with continued(tmp_path) as writer:
        assert writer.count("train") == 8
        writer.add("train", some(20)[8:])
    assert len(Dump.open(tmp_path, "x").split("train")) == 20


# --- many files -------------------------------------------------------------------------------------------------------

MANY_FILES = """
import resource, sys
from pathlib import Path
import numpy as np
from lvae_torch.data.dump import Dump
from lvae_torch.errors import DataError

folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512))
dump = Dump.open(folder, "x")
images = dump.split("train").gather(np.arange(400))
print(int(images.sum()), resource.getrlimit(resource.RLIMIT_NOFILE))
del images
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(open("/dev/null"))
except OSError:
    pass
for read in (dump.split, dump.labels):
    try:
        read("train")
    except DataError as error:
        print(error)
"""


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_a_dump_of_many_files_is_opened(tmp_path: Path, repository: Path, encoding: Any) -> None:
    """Each shard that is mapped keeps a file open; where there can be no more, nothing is called damaged."""
    images = some(400)
    write(tmp_path, layout(encoding=encoding), images, labels=np.arange(400))
    command = [sys.executable, "-c", MANY_FILES, str(tmp_path)]
    ended = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    first, *others = ended.stdout.splitlines()
    assert first == f"{images.sum()} (512, 512)"
    assert len(others) == 2 and "damaged" not in ended.stdout
    assert all("too many files are open" in line and "ulimit -n" in line for line in others)
