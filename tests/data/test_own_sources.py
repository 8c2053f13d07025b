"""Arrays, tables, labels, own copies of known sets, addresses and shared folders as sources of a dump."""

import gzip
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import upstream
import upstream_pictures
from making import contents
from test_images_recipe import make, noise, write_folder
from test_own_pictures import images_of
from upstream_pictures import encoded

import data_scripts
import lvae_torch.data
from lvae_torch.data.classes import labels_told
from lvae_torch.data.dump import Dump
from lvae_torch.errors import CfgError, DataError

pytestmark = pytest.mark.usefixtures("at_once")
PIXELS = np.stack([noise(8, 8, k) for k in range(6)])
LABELS = np.array([0, 1, 2, 0, 1, 2])
PNGS = [encoded(image) for image in PIXELS]


# --- arrays and tables ------------------------------------------------------------------------------------------------


def npy(path: Path) -> Path:
    np.save(path / "x.npy", PIXELS)
    return path / "x.npy"


def planes(path: Path) -> Path:
    np.save(path / "x.npy", PIXELS.transpose(0, 3, 1, 2))
    return path / "x.npy"


def npz(path: Path) -> Path:
    np.savez_compressed(path / "x.npz", images=PIXELS, labels=LABELS[:, None])
    return path / "x.npz"


def hdf5(path: Path) -> Path:
    import h5py

    with h5py.File(path / "x.h5", "w") as file:
        file["images"], file["labels"] = PIXELS, LABELS
    return path / "x.h5"


def table() -> Any:
    import pyarrow as pa

    return pa.table({"image": [{"bytes": png, "path": f"{k}.png"} for k, png in enumerate(PNGS)], "label": LABELS})


def parquet(path: Path) -> Path:
    import pyarrow.parquet as pq

    pq.write_table(table(), path / "x.parquet", row_group_size=2)
    return path / "x.parquet"


def saved_dataset(path: Path) -> Path:
    """As Hugging Face's ``save_to_disk`` lays a set out."""
    import pyarrow as pa

    folder = path / "set" / "train"
    folder.mkdir(parents=True)
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table().schema) as out,
    ):
        out.write_table(table(), max_chunksize=4)
    (folder / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
    (path / "set" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    return path / "set"


def lmdb_of_files(path: Path) -> Path:
    import lmdb

    with lmdb.open(str(path / "db"), map_size=2**20) as environment, environment.begin(write=True) as transaction:
        for k, png in enumerate(PNGS):
            transaction.put(f"{k:08d}".encode(), png)
        transaction.put(b"length", b"6")
    return path / "db"


@pytest.mark.parametrize("lay_out", [npy, planes, npz, hdf5, parquet, saved_dataset, lmdb_of_files])
def test_arrays_and_tables_keep_every_pixel_and_label(tmp_path: Path, lay_out: Callable[[Path], Path]) -> None:
    dump = make(lay_out(tmp_path), tmp_path / "dumps", valid=0)
    found = contents(tmp_path / "dumps", "x")["train"]
    assert np.array_equal(found.images, PIXELS)
    has_labels = lay_out not in (npy, planes, lmdb_of_files)
    assert (found.labels is not None and found.labels.tolist()) == (LABELS.tolist() if has_labels else False)
    left_out = dump.provenance["account"]["left_out"]
    assert sum(entry["count"] for entry in left_out.values()) == (lay_out is lmdb_of_files)


@pytest.mark.parametrize("name", ["state.json", "dataset_dict.json"])
@pytest.mark.parametrize("text", ['{"cursor": 5}', "[1]", "5", "{", "", '{"splits": [1]}', '{"splits": "train"}'])
def test_notes_of_other_programs_beside_pictures_are_no_dataset(tmp_path: Path, name: str, text: str) -> None:
    source = write_folder(tmp_path / "mine", {"a.png": PNGS[0], name: text.encode()})
    dump = make(source, tmp_path / "dumps", valid=0)
    assert dump.names("train") == ["a.png"]
    assert dump.provenance["account"]["left_out"] == {"no pictures (.json)": {"count": 1, "first": [name]}}


@pytest.mark.parametrize("how", ["cut off", "zeros"])
def test_damaged_lmdb_is_told(tmp_path: Path, how: str) -> None:
    """Rather than the process being ended by a signal, as reading beyond a mapped file does."""
    import lmdb

    file = tmp_path / "db" / "data.mdb"
    with lmdb.open(str(file.parent), map_size=2**22) as environment, environment.begin(write=True) as transaction:
        for k in range(100):
            transaction.put(f"{k:08d}".encode(), encoded(noise(40, 40, k)))
    data = file.read_bytes()
    half = len(data) // 2
    file.write_bytes(data[:half] if how == "cut off" else data[:half] + bytes(len(data) - half))
    with pytest.raises(DataError, match=r"db: (cut off|damaged)"):
        make(file.parent, tmp_path / "dumps")


def test_named_arrays_are_splits(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x_train=PIXELS[:4], y_train=LABELS[:4], x_test=PIXELS[4:], y_test=LABELS[4:])
    dump = make(tmp_path / "x.npz", tmp_path / "dumps")
    assert dump.counts == {"train": 4, "test": 2}
    assert dump.labels("test").tolist() == [1, 2]


@pytest.mark.parametrize(("arrays", "told"), [
    ({"left": PIXELS, "right": PIXELS}, r"left, right\. Choose one with --key"),
    ({"x": PIXELS.astype(np.int64)}, r"int64\. Say which values .*--range"),
    ({"x": PIXELS.astype(np.float32)}, "outside of 0 to 1"),
    ({"x": PIXELS[0].transpose(2, 0, 1)}, "--axes"),
    ({"x": np.array([{}], dtype=object)}, "no array that may be pictures"),
    ({"x": np.zeros((3, 8, 8, 5), np.uint8)}, "--axes"),
])  # fmt: skip
def test_arrays_that_are_not_clear_are_asked_about(tmp_path: Path, arrays: dict[str, np.ndarray], told: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises((CfgError, DataError), match=told):
        make(tmp_path / "x.npz", tmp_path / "dumps", valid=0)


def test_arrays_that_are_not_taken_are_accounted_for(tmp_path: Path) -> None:
    words = np.array(list("abcabc"))
    np.savez(tmp_path / "x.npz", images=PIXELS, labels=words, scores=np.arange(5), y=np.eye(6)[:, :3])
    dump = make(tmp_path / "x.npz", tmp_path / "dumps", valid=0)
    assert (dump.labels("train").tolist(), dump.label_names) == (LABELS.tolist(), ("a", "b", "c"))
    left_out = dump.provenance["account"]["left_out"]
    assert [entry["first"] for entry in left_out.values()] == [["x.npz/scores", "x.npz/y"]]


def test_rows_of_numbers_are_not_taken_for_one_picture(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", PIXELS.reshape(6, -1))
    with pytest.raises(DataError, match=r"\(6, 192\) may be no picture.*reshape it, if each row is a picture"):
        make(tmp_path / "x.npy", tmp_path / "dumps")


def test_a_file_of_several_arrays_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "x.npy", "wb") as file:
        np.save(file, PIXELS)
        np.save(file, PIXELS)
    with pytest.raises(DataError, match="several arrays in one file"):
        make(tmp_path / "x.npy", tmp_path / "dumps")


def test_each_array_of_a_folder_may_be_a_picture(tmp_path: Path) -> None:
    """In folders of classes, by its own name."""
    for k, folder in enumerate(("cat", "dog", "cat")):
        (tmp_path / "mine" / folder).mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "mine" / folder / f"{k}.npy", PIXELS[k])
    dump = make(tmp_path / "mine", tmp_path / "dumps", valid=0)
    assert dump.names("train") == ["cat/0.npy", "cat/2.npy", "dog/1.npy"]
    assert dump.labels("train").tolist() == [0, 0, 1]
    assert np.array_equal(images_of(tmp_path / "dumps")["dog/1.npy"], PIXELS[1])


def test_a_dump_can_be_written_by_a_program(tmp_path: Path) -> None:
    parts = ((PIXELS[k : k + 2], LABELS[k : k + 2]) for k in (0, 2, 4))
    dump = lvae_torch.data.write_dump("mine", {"train": parts, "test": PIXELS}, tmp_path, label_names=["a", "b", "c"])
    assert np.array_equal(contents(tmp_path, "mine")["train"].images, PIXELS)
    assert (dump.counts, dump.n_levels, dump.label_names) == ({"train": 6, "test": 6}, 256, ("a", "b", "c"))
    assert labels_told(dump, "train") == "3 classes: a 2, b 2, c 2" and labels_told(dump, "test") == ""
    with pytest.raises(DataError, match="float64"):
        lvae_torch.data.write_dump("other", {"train": PIXELS / 2}, tmp_path)


@pytest.mark.parametrize(
    ("splits", "told"),
    [
        ({}, "mine: has no splits"),
        ({"train": (PIXELS, LABELS / 2)}, r"mine, split train: labels of float64 \(6,\) for 6 images; needs integers"),
        ({"train": (PIXELS, LABELS[:5])}, r"mine, split train: labels of \w+ \(5,\) for 6 images"),
        ({"train": (PIXELS, LABELS[0])}, "labels of"),
        ({"train": [(PIXELS, LABELS), (PIXELS, None)]}, "some parts have labels, others none"),
        ({"train": [(PIXELS[:5], LABELS), (PIXELS[5:], LABELS[:0])]}, r"\(6,\) for 5 images"),
    ],
)
def test_labels_of_a_program_must_fit_its_images(splits: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        lvae_torch.data.write_dump("mine", splits, tmp_path)
    assert not (tmp_path / "mine").exists()


# --- own copies of known sets -----------------------------------------------------------------------------------------


def test_mnist_as_torchvision_leaves_it(small_mirror: Callable[..., Any], tmp_path: Path) -> None:
    folder, content = small_mirror(upstream.mnist)
    files = {f"MNIST/raw/{f.stem}": gzip.decompress(f.read_bytes()) for f in folder.glob("*.gz")}
    data_scripts.make("mnist", tmp_path, source=str(write_folder(tmp_path / "torchvision", files)))
    assert np.array_equal(contents(tmp_path, "mnist")["train"].images, content["train"].images)


def test_cifar10_unpacked_or_the_archive_itself(small_mirror: Callable[..., Any], tmp_path: Path) -> None:
    folder, _ = small_mirror(upstream.cifar10)
    archive = folder / "cifar-10-python.tar.gz"
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "own", filter="data")
    for name, source in (("a", archive), ("b", tmp_path / "own")):
        data_scripts.make("cifar10", tmp_path, source=str(source), name=name)
    assert np.array_equal(contents(tmp_path, "a")["train"].images, contents(tmp_path, "b")["train"].images)
    (tmp_path / "own" / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(DataError, match=r"has 4 of the 5 training batches\. .*--accept-other"):
        data_scripts.make("cifar10", tmp_path, source=str(tmp_path / "own"))
    assert data_scripts.make("cifar10", tmp_path, source=str(tmp_path / "own"), accept_other=True) == "cifar10_other"


def test_celeba_as_on_kaggle_with_attributes(small_mirror: Callable[..., Any], tmp_path: Path) -> None:
    folder, _ = small_mirror(upstream_pictures.celeba)
    data_scripts.make("celeba64", tmp_path, source=str(folder), name="upstream")
    own = tmp_path / "own"
    zipfile.ZipFile(folder / "img_align_celeba.zip").extractall(own / "img_align_celeba")
    lines = (folder / "list_eval_partition.txt").read_text().splitlines()
    (own / "list_eval_partition.csv").write_text("\ufeffimage_id,partition\n" + "\n".join(lines).replace(" ", ","))
    rows = [f"{line.split()[0]},{(-1) ** k},1" for k, line in enumerate(lines)]
    (own / "list_attr_celeba.csv").write_text("image_id,Smiling,Young\n" + "\n".join(rows))
    data_scripts.make("celeba64", tmp_path, source=str(own), name="own")
    one, other = (contents(tmp_path, name) for name in ("upstream", "own"))
    assert all(np.array_equal(one[split].images, other[split].images) for split in one)
    assert other["train"].labels[:3].tolist() == [[1, 1], [-1, 1], [1, 1]]
    assert Dump.open(tmp_path, "own").label_names == ("Smiling", "Young")


def test_imagenet_pickles_and_unpacked_npz(small_mirror: Callable[..., Any], tmp_path: Path) -> None:
    folder, content = small_mirror(lambda f: upstream.imagenet(f, 32))
    zipped, plain, pickled = tmp_path / "zips", tmp_path / "plain", tmp_path / "pickles"
    pickled.mkdir()
    for archive in folder.glob("*.zip"):
        zipfile.ZipFile(archive).extractall(plain)
    for path in plain.rglob("*_*.npz"):
        if "__MACOSX" not in path.parts:
            with np.load(path) as arrays:
                values = {"data": arrays["data"], "labels": arrays["labels"].tolist()}
            (pickled / path.stem).write_bytes(pickle.dumps(values))
    for name, source in (("a", plain), ("b", pickled)):
        data_scripts.make("imagenet32", tmp_path, source=str(source), name=name)
        found = contents(tmp_path, name)
        assert np.array_equal(found["train"].images, content["train"].images)
        assert found["test"].labels.tolist() == content["val"].labels.tolist()
    (pickled / "train_data_batch_7").unlink()
    with pytest.raises(DataError, match="has 9 of the 10 training batches"):
        data_scripts.make("imagenet32", tmp_path, source=str(pickled))
    assert not zipped.exists()


def test_another_set_of_the_same_form_is_refused(shared: Path, tmp_path: Path) -> None:
    mnist = str(shared / "data" / "raw" / "mnist")
    with pytest.raises(DataError, match=r"holds MNIST's digits, not fashion_mnist\. .*--accept-other"):
        data_scripts.make("fashion_mnist", tmp_path, source=mnist)
