"""The datasets' file formats, against the libraries that usually read them; damage is named, and nothing is run."""

import gzip
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from upstream import Part, classes, idx, images, norb_matrix, planar, python2_pickle, svhn_mat

import data_scripts
from data_scripts import formats, spans
from data_scripts.formats import MatArray, NorbArray, NpyInZip, read_idx, read_pickle
from lvae_torch.errors import DataError


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few items at a time, so that there are several pieces."""
    monkeypatch.setattr(formats, "PART_BYTES", 200)


def noise(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(0, 200, shape).astype(dtype)


def flipped(data: bytes, step: int = 1) -> Iterator[bytes]:
    """``data`` with one byte changed, at one place after the other."""
    for k in range(0, len(data), step):
        yield data[:k] + bytes([data[k] ^ 0x55]) + data[k + 1 :]


def assert_told_or_right(path: Path, damaged: bytes, read: Callable[[Path], np.ndarray], right: np.ndarray) -> bool:
    """Damage is either told, naming the file, or did no harm; returns whether it was told."""
    path.write_bytes(damaged)
    try:
        found = read(path)
    except DataError as error:
        assert str(path) in str(error)
        return True
    assert np.array_equal(found, right)
    return False


# --- MATLAB -----------------------------------------------------------------------------------------------------------


def read_mat(path: Path) -> np.ndarray:
    return np.concatenate(list(MatArray(path, "X").items()))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["X", "Xab", "aXb", "abX"])
def test_one_array_of_a_mat_file(tmp_path: Path, small_pieces: None, compressed: bool, order: str) -> None:
    from scipy.io import loadmat, savemat

    values = {"X": noise(4, 5, 3, 17), "a": noise(3, 4, dtype=float), "b": noise(4, 5, 3, 2)}
    names = {"X": "X", "a": "a_longer_name", "b": "XX"}
    savemat(tmp_path / "a.mat", {names[key]: values[key] for key in order}, do_compression=compressed)
    array = MatArray(tmp_path / "a.mat", "X")
    pieces = list(array.items())
    assert (array.shape, len(pieces)) == ((4, 5, 3, 17), 6)
    assert np.array_equal(np.concatenate(pieces), loadmat(tmp_path / "a.mat")["X"].transpose(3, 2, 1, 0))


def test_a_mat_file_without_the_array(tmp_path: Path) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "a.mat", {"Y": noise(2, 2)})
    with pytest.raises(DataError, match=r"a\.mat: has no uint8 array 'X'"):
        MatArray(tmp_path / "a.mat", "X")
    savemat(tmp_path / "a.mat", {"X": noise(2, 2, dtype=float) / 3})
    with pytest.raises(DataError, match=r"a\.mat: X: .*values of type 9"):
        MatArray(tmp_path / "a.mat", "X")
    (tmp_path / "a.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
    with pytest.raises(DataError, match="no little-endian MATLAB 5 file"):
        MatArray(tmp_path / "a.mat", "X")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_mat_file_that_is_cut_off(tmp_path: Path, small_pieces: None, compressed: bool) -> None:
    data = svhn_mat(Part(noise(2, 32, 32, 3), np.arange(2)), compressed)
    whole = tmp_path / "whole.mat"
    whole.write_bytes(data)
    right, end = read_mat(whole), 128 + 8 + struct.unpack("<I", data[132:136])[0]
    for length in (*range(0, 220, 3), *range(220, end, 97), end - 1):
        assert assert_told_or_right(tmp_path / "a.mat", data[:length], read_mat, right), length


def test_a_mat_file_with_a_wrong_byte(tmp_path: Path, small_pieces: None) -> None:
    """Packed arrays have a check sum; of plain ones only the heads can be told to be wrong."""
    packed = svhn_mat(Part(noise(2, 32, 32, 3), np.arange(2)))
    (tmp_path / "a.mat").write_bytes(packed)
    right, end = read_mat(tmp_path / "a.mat"), 128 + 8 + struct.unpack("<I", packed[132:136])[0]
    told = [assert_told_or_right(tmp_path / "a.mat", bad, read_mat, right) for bad in flipped(packed[:end], 41)]
    assert sum(told) >= len(told) - 4  # the text at the beginning may say what it likes
    plain = svhn_mat(Part(noise(2, 32, 32, 3), np.arange(2)), compressed=False)
    for bad in flipped(plain[:200]):
        (tmp_path / "a.mat").write_bytes(bad + plain[200:])
        try:
            read_mat(tmp_path / "a.mat")
        except DataError as error:
            assert "a.mat" in str(error)


# --- npz --------------------------------------------------------------------------------------------------------------


def read_npz(path: Path) -> np.ndarray:
    return np.concatenate(list(NpyInZip(path, "data").rows()))


def npz(compressed: bool, **arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(out, **arrays)
    return out.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("shape", [(23,), (23, 7), (23, 2, 3)])
def test_one_array_of_an_npz_file(
    tmp_path: Path, small_pieces: None, compressed: bool, dtype: Any, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(npz(compressed, other=noise(3), data=noise(*shape, dtype=dtype)))
    array = NpyInZip(path, "data")
    assert (array.shape, array.dtype) == (shape, dtype)
    assert np.array_equal(read_npz(path), np.load(path)["data"])


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"data": np.array([{}], dtype=object)}, "object"),
        ({"data": np.asfortranarray(noise(4, 5))}, "column-major"),
        ({"data": np.zeros(3, dtype=[("a", "O")])}, "O"),
        ({"other": noise(4)}, "data.npy"),
    ],
)
def test_other_arrays_of_npz_files_are_refused(tmp_path: Path, arrays: dict[str, Any], told: str) -> None:
    (tmp_path / "a.npz").write_bytes(npz(True, **arrays))
    with pytest.raises(DataError, match=rf"a\.npz: data: .*{told}"):
        NpyInZip(tmp_path / "a.npz", "data")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_npz_file_is_told(tmp_path: Path, small_pieces: None, compressed: bool) -> None:
    right = noise(30, 12)
    data, path = npz(compressed, data=right), tmp_path / "a.npz"
    assert all(assert_told_or_right(path, data[:n], read_npz, right) for n in range(0, len(data), 7))
    told = [assert_told_or_right(path, bad, read_npz, right) for bad in flipped(data)]
    assert sum(told) > 0.8 * len(told)


def test_an_array_longer_than_its_head_says(tmp_path: Path, small_pieces: None) -> None:
    """Reading stops where the head says, so the check sum would never be compared."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        out = io.BytesIO()
        np.save(out, noise(5, 4))
        archive.writestr("data.npy", out.getvalue() + bytes(300))
    with pytest.raises(DataError, match=r"a\.npz"):
        read_npz(tmp_path / "a.npz")


# --- small NORB, idx --------------------------------------------------------------------------------------------------


def read_norb(path: Path) -> np.ndarray:
    return np.concatenate(list(NorbArray(path).rows()))


@pytest.mark.parametrize("shape", [(9,), (9, 4), (9, 2, 6, 6), (3, 2, 2, 2, 2)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_a_binary_matrix(tmp_path: Path, small_pieces: None, shape: tuple[int, ...], dtype: Any) -> None:
    array = noise(*shape, dtype=dtype)
    (tmp_path / "a.mat.gz").write_bytes(norb_matrix(array))
    assert NorbArray(tmp_path / "a.mat.gz").shape == shape
    assert np.array_equal(read_norb(tmp_path / "a.mat.gz"), array)


@pytest.mark.parametrize(("read", "pack"), [(read_norb, norb_matrix), (read_idx, idx)], ids=["norb", "idx"])
@pytest.mark.parametrize("shape", [(150,), (9, 4, 4)])
def test_a_damaged_gzipped_array_is_told(
    tmp_path: Path, small_pieces: None, read: Any, pack: Any, shape: tuple[int, ...]
) -> None:
    right, path = noise(*shape), tmp_path / "a.gz"
    data = pack(right)
    assert all(assert_told_or_right(path, data[:n], read, right) for n in range(0, len(data), 3))
    told = [assert_told_or_right(path, bad, read, right) for bad in flipped(data)]
    assert sum(told) >= len(told) - 8  # gzip's own head has a date and the like
    unpacked, head = gzip.decompress(data), len(gzip.decompress(data)) - right.size
    for wrong in flipped(unpacked[:head]):
        assert_told_or_right(path, gzip.compress(wrong + unpacked[head:]), read, right)
    assert assert_told_or_right(path, gzip.compress(unpacked + b"x"), read, right)


def test_an_idx_file_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "MAX_MEMBER", 10_000)
    (tmp_path / "a.gz").write_bytes(idx(noise(5, 28, 28)))
    assert read_idx(tmp_path / "a.gz").shape == (5, 28, 28)
    (tmp_path / "a.gz").write_bytes(idx(np.zeros((50, 28, 28), np.uint8)))
    with pytest.raises(DataError, match=r"a\.gz: .*10,000"):
        read_idx(tmp_path / "a.gz")


# --- pickles ----------------------------------------------------------------------------------------------------------


class Calls:
    """Pickled as a call of something."""

    def __init__(self, what: Any, *arguments: Any) -> None:
        self.call = what, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_pickles_of_arrays_are_read() -> None:
    batch = {"data": planar(images(4, 32, 3, 0)), "labels": classes(4, 10, 0).tolist(), "batch_label": "testing"}
    data = [python2_pickle(batch), *(pickle.dumps(batch, protocol) for protocol in (0, 2, 3, 4))]
    for value in (read_pickle(pickled, Path("a")) for pickled in data):
        assert np.array_equal(value["data"], batch["data"])
        assert (value["data"].dtype, value["labels"], value["batch_label"]) == (np.uint8, batch["labels"], "testing")
    grey = {"train": np.ones((3, 28, 28, 1), np.uint8), "train_labels": np.arange(3)}
    assert read_pickle(pickle.dumps(grey, 4), Path("a"))["train_labels"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("call", "told"),
    [
        ((os.system, "touch RAN"), r"(posix|nt)\.system"),
        ((eval, "open('RAN', 'w')"), r"(__builtin__|builtins)\.eval"),
        ((exec, "open('RAN', 'w')"), r"(__builtin__|builtins)\.exec"),
        ((getattr, np.ndarray, "tofile"), r"(__builtin__|builtins)\.getattr"),
        ((np.load, "RAN"), r"numpy\.load"),
        ((io.open, "RAN", "w"), r"_?io\.open"),
    ],
)
def test_whatever_else_a_pickle_asks_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int, call: Any, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for hidden in (Calls(*call), {"data": [Calls(*call)]}, {"data": np.array([Calls(*call)], dtype=object)}):
        with pytest.raises(DataError, match=rf"a\.pkl: .*asks for {told}"):
            read_pickle(pickle.dumps(hidden, protocol), Path("a.pkl"))
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b"\x80\x04\x8c\x05numpy\x94\x8c\x0endarray.tofile\x94\x93\x94.",  # a name inside an allowed one
        b"\x80\x02cnumpy\ndtype.__init__\n.",
        b"\x80\x02Pos.system\n.",  # persistent id
        b"\x80\x02U\x03abcQ.",
        b"\x80\x02\x82\x01.",  # extension code
        b"\x80\x02(ios\nsystem\n.",
        pickle.dumps([1, 2]),
        pickle.dumps({"data": noise(99)}, 4)[:-20],
        b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.",  # 2 GiB of doubles eight times over
        b"\x80\x7f}.",
    ],
)
def test_other_pickles_are_refused(pickled: bytes) -> None:
    with pytest.raises(DataError, match=r"a\.pkl: "):
        read_pickle(pickled, Path("a.pkl"))


# --- chardata.mat -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["empty", "junk", "cut off", "transposed", "out of range", "few labels", "other"])
def test_a_damaged_chardata_is_told(tmp_path: Path, damage: str) -> None:
    from scipy.io import savemat

    columns, onehot = noise(784, 9) / 255, np.eye(50)[:, :9]
    values = {"data": columns, "target": onehot, "testdata": columns, "testtarget": onehot}
    path = tmp_path / "chardata.mat"
    values |= {
        "transposed": {"data": columns.T},
        "out of range": {"testdata": columns * 255},
        "few labels": {"target": onehot[:, :5]},
    }.get(damage, {})
    savemat(path, {"x": 1} if damage == "other" else values, do_compression=damage == "cut off")
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "junk": b"junk" * 100, "cut off": data[: len(data) // 2]}.get(damage, data))
    with pytest.raises(DataError, match=r"chardata\.mat"):
        data_scripts.make("omniglot", tmp_path / "dumps", mirror=str(tmp_path))
    assert not (tmp_path / "dumps" / "omniglot").exists()
