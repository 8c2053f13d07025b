"""Own pictures: what is in the dump, to the pixel and the name, and what the account says became of the rest."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import bytes_of, contents
from PIL import Image
from test_images_recipe import make, noise, some, write_folder
from upstream_pictures import encoded, write_tar, write_zip

from data_scripts import decoding, splits
from data_scripts.account import FILE
from data_scripts.commands import command
from data_scripts.sources import walk
from lvae_torch.data import writing
from lvae_torch.data.dump import Dump
from lvae_torch.errors import CfgError, DataError

pytestmark = pytest.mark.usefixtures("at_once")


def images_of(dumps: Path, name: str = "x") -> dict[str, np.ndarray]:
    """Images by name, of all splits."""
    return {
        n: image for part in contents(dumps, name).values() for n, image in zip(part.names, part.images, strict=True)
    }


def account_of(dump: Dump) -> dict[str, Any]:
    account: dict[str, Any] = dump.provenance["account"]
    return account


# --- nothing is lost without a word -----------------------------------------------------------------------------------


def test_everything_seen_is_accounted_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_folder(tmp_path / "mine", some(["a/1.png", "a/2.png", "b/3.png"]))
    linked = write_folder(tmp_path / "elsewhere", some(["4.png"]))
    (source / "c").symlink_to(linked)
    (source / "b" / "up").symlink_to(source)
    (source / "dead.png").symlink_to(tmp_path / "nowhere")
    stray = {"Thumbs.db": b"x", "@eaDir/5.png/SYNOPHOTO_THUMB_M.jpg": b"x", ".hidden.png": b"x", "a/notes.txt": b"hi",
             "IMG_1.CR2": b"II*\0raw", "film.mp4": b"x", "more.zip": b"PK\3\4"}  # fmt: skip
    write_folder(source, stray)
    os.mkfifo(source / "pipe.png")
    (source / "no_ending").write_bytes(encoded(noise(9, 9, 7), "JPEG"))
    command(
        ["images", "--source", str(source), "--name", "x", "--size", "8", "--dumps", str(tmp_path), "--labels", "none"]
    )
    dump = Dump.open(tmp_path, "x")
    account = account_of(dump)
    assert sorted(images_of(tmp_path)) == ["a/1.png", "a/2.png", "b/3.png", "c/4.png", "no_ending"]
    assert account["seen"] == account["taken"] + sum(entry["count"] for entry in account["left_out"].values()) == 15
    why = {name: reason for reason, entry in account["left_out"].items() for name in entry["first"]}
    assert "lead back" in why["b/up/"] and "nowhere" in why["dead.png"] and "system" in why["Thumbs.db"]
    assert "system" in why["@eaDir/"] and why[".hidden.png"] == "hidden" and "raw" in why["IMG_1.CR2"]
    assert "film" in why["film.mp4"] and ".txt" in why["a/notes.txt"] and "beside" in why["more.zip"]
    assert "pipes" in why["pipe.png"]
    said = capsys.readouterr().out
    assert "seen 15, taken 5, left out 10" in said and "dead.png" in said
    lines = (tmp_path / "x" / FILE).read_text().splitlines()
    assert {line.split("\t")[2] for line in lines[1:] if line.startswith("left out")} == set(why)


def test_what_may_not_be_read_stops_unless_it_may_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_folder(tmp_path / "mine", some(["1.png", "2.png", "3.png"]))
    monkeypatch.setattr(walk.os, "access", lambda path, _: not str(path).endswith("2.png"))
    with pytest.raises(DataError, match=r"1 may not be read, the first 2\.png.*--skip-unreadable"):
        make(source, tmp_path)
    dump = make(source, tmp_path, skip_unreadable=True)
    assert account_of(dump)["left_out"]["may not be read"] == {"count": 1, "first": ["2.png"]}


def test_odd_names_and_links_in_archives(tmp_path: Path) -> None:
    (one, two, three) = some(["1", "2", "3"]).values()
    zipped = write_zip(tmp_path / "z.zip", {"a\\1.png": one, "/b/2.png": two, "../3.png": three})
    dump = make(zipped, tmp_path, valid=0)
    assert sorted(images_of(tmp_path)) == ["a/1.png", "b/2.png"]
    assert [entry["first"] for entry in account_of(dump)["left_out"].values()] == [["../3.png"]]
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name, data in (("d/1.png", one), ("d/2.png", two)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, kind, target in (("e/3.png", tarfile.SYMTYPE, "../d/1.png"), ("4.png", tarfile.LNKTYPE, "d/2.png"),
                                   ("5.png", tarfile.SYMTYPE, "/etc/passwd")):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    dump = make(tmp_path / "t.tar", tmp_path, valid=0)
    found = images_of(tmp_path)
    assert sorted(found) == ["4.png", "d/1.png", "d/2.png", "e/3.png"]
    assert np.array_equal(found["e/3.png"], found["d/1.png"]) and np.array_equal(found["4.png"], found["d/2.png"])
    assert [entry["first"] for entry in account_of(dump)["left_out"].values()] == [["5.png"]]


@pytest.mark.parametrize("kind", ["tar.gz", "tgz", "tar.xz", "tar.bz2", "ZIP", "zip in zip", "folder of zips", "wds"])
def test_archives_of_any_kind_give_the_same(tmp_path: Path, kind: str) -> None:
    files, wanted = some(["cat/1.png", "dog/2.png"]), {"cat/1.png", "dog/2.png"}
    if kind == "ZIP":
        source = write_zip(tmp_path / "x.ZIP", files)
    elif kind == "zip in zip":
        source = write_zip(tmp_path / "x.zip", {"inner.zip": write_zip(tmp_path / "i.zip", files).read_bytes()})
    elif kind == "folder of zips":
        (source := tmp_path / "zips").mkdir()
        for name, data in files.items():
            write_zip(source / f"{name[:3]}.zip", {name: data})
        wanted = {"cat.zip/cat/1.png", "dog.zip/dog/2.png"}
    elif kind == "wds":
        classes = {"cat/1.cls": b"3", "dog/2.cls": b"5"}
        source = write_tar(tmp_path / "shard-000.tar", {**files, **classes})
    else:
        source = tmp_path / f"x.{kind}"
        with tarfile.open(
            source, "w:" + {"gz": "gz", "tgz": "gz", "xz": "xz", "bz2": "bz2"}[kind.rpartition(".")[2]]
        ) as tar:
            tar.add(write_folder(tmp_path / "f", files), "")
    dump = make(source, tmp_path, valid=0)
    found = images_of(tmp_path)
    assert set(found) == wanted
    for name, image in found.items():
        picture = (
            Image.fromarray(noise(12, 10, "dog" in name)).crop((0, 1, 10, 11)).resize((8, 8), Image.Resampling.BILINEAR)
        )
        assert np.array_equal(image, np.asarray(picture))
    assert (dump.labels("train") is not None and dump.labels("train").tolist()) == ([3, 5] if kind == "wds" else [0, 1])
    assert not (tmp_path / ".raw" / "images" / "unpacked").exists()


def test_dumps_among_the_pictures_are_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """People convert the folder that they are in, twice; contact sheets lie among its dumps."""
    source = write_folder(tmp_path / "mine", some(["1.png", "2.png"]))
    monkeypatch.chdir(source)
    for _ in range(2):
        dump = make(Path(), Path("dataset_dumps"), valid=0)
        (source / "dataset_dumps" / "x_train.png").write_bytes(encoded(noise(9, 9)))
    assert dump.counts == {"train": 2} and dump.provenance["source"] == "mine"
    assert account_of(dump)["left_out"] == {"the folder of all dumps": {"count": 1, "first": ["dataset_dumps/"]}}


# --- splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "split"), [
    ("TRAIN", "train"), ("trainA", "train"), ("train_set", "train"), ("Training Images", "train"),
    ("train2017", "train"),
    ("01_train", "train"), ("train.zip", "train"), ("train-00001-of-00002.parquet", "train"), ("x_train", "train"),
    ("val", "valid"), ("dev", "valid"), ("Validation_Data", "valid"), ("validate", "valid"), ("valset", "valid"),
    ("testing", "test"), ("hold-out", "test"), ("HeldOut", "test"), ("eval", "test"), ("testB", "test"),
    ("cats", ""), ("trainers", ""), ("protest", ""), ("bullet_train", ""), ("trainval", ""),
])  # fmt: skip
def test_names_that_people_give_to_splits(folder: str, split: str) -> None:
    assert splits.split_of(f"mine/{folder}") == split


def test_evaluation_is_the_test_unless_there_is_another() -> None:
    both = splits.in_folders(["train/1.png", "eval/2.png", "test/3.png"])
    assert both is not None and both.names == {
        "train": ["train/1.png"],
        "valid": ["eval/2.png"],
        "test": ["test/3.png"],
    }


@pytest.mark.parametrize("names", [
    ["train/1.png", "val/2.png", "preview.png"], ["train/1.png", "extra/2.png"], ["val/1.png", "test/2.png"],
    ["celeba_train/1.png", "mnist_test/2.png"],
])  # fmt: skip
def test_folders_that_are_not_wholly_splits_stop(tmp_path: Path, names: list[str]) -> None:
    source = write_folder(tmp_path / "mine", some(names))
    with pytest.raises(CfgError, match=r"--splits random") as told:
        make(source, tmp_path)
    assert names[-1] in str(told.value) or names[-1].partition("/")[0] in str(told.value)
    dump = make(source, tmp_path, splits="random", valid=1)
    assert dump.counts == {"train": len(names) - 1, "valid": 1}


def test_outsiders_are_left_out_where_folders_are_chosen(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "mine", some(["train/1.png", "val/2.png", "preview.png"]))
    dump = make(source, tmp_path, splits="folders")
    assert dump.counts == {"train": 1, "valid": 1}
    assert account_of(dump)["left_out"]["in no folder that is called like a split"]["first"] == ["preview.png"]


def test_valid_means_what_it_says(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "mine", some([f"{k}.png" for k in range(20)]))
    assert make(source, tmp_path, valid=0).counts == {"train": 20}
    assert make(source, tmp_path, valid="25%").counts == {"train": 15, "valid": 5}
    given = write_folder(tmp_path / "given", some([f"train/{k}.png" for k in range(10)] + ["test/1.png"]))
    dump = make(given, tmp_path, valid="3")
    assert dump.counts == {"train": 7, "valid": 3, "test": 1} and dump.names("test") == ["test/1.png"]
    write_folder(given, some(["val/9.png"]))
    with pytest.raises(CfgError, match="val holds 1 pictures to validate on"):
        make(given, tmp_path, valid=3)
    with pytest.raises(CfgError, match="--valid is half"):
        make(source, tmp_path, valid="half")


@pytest.mark.parametrize("by", ["folder", r"^(\w+)/"])
def test_groups_stay_together(tmp_path: Path, by: str) -> None:
    names = [f"{person}/{k}.png" for person in "abcdef" for k in range(4)]
    make(write_folder(tmp_path / "mine", some(names)), tmp_path, group_by=by, valid=7)
    found = contents(tmp_path, "x")
    train, valid = ({name[0] for name in found[split].names} for split in ("train", "valid"))
    assert not train & valid and train | valid == set("abcdef") and len(found["valid"].names) == 8
    with pytest.raises(CfgError, match=r"do not match, the first a/0\.png"):
        make(tmp_path / "mine", tmp_path, group_by="z(.*)")


def test_equal_pictures_of_two_splits_are_told(tmp_path: Path) -> None:
    same = noise(8, 8, 1)
    files = {"train/1.png": encoded(same), "train/2.png": encoded(noise(8, 8, 2)), "test/3.bmp": encoded(same, "BMP")}
    files["test/4.png"] = encoded(same)
    equal = account_of(make(write_folder(tmp_path / "mine", files), tmp_path))["equal_images"]
    first = ["train/1.png = test/3.bmp", "train/1.png = test/4.png"]
    assert equal == {"of test that are in train, too": {"count": 2, "first": first}}


# --- a conversion that goes on ----------------------------------------------------------------------------------------


def test_reexported_pictures_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same names, same sizes, other pixels, while a conversion was stopped; and files that were only touched."""
    monkeypatch.setitem(writing.SHARD_BYTES, "raw", 4 * 8 * 8 * 3)
    monkeypatch.setattr(decoding, "PAGE_IMAGES", 2)
    source = write_folder(tmp_path / "mine", {f"{k}.bmp": encoded(noise(8, 8, k), "BMP") for k in range(12)})
    for change in ("touched", "other pixels"):
        stop_after(2, source, tmp_path, monkeypatch)
        if change == "other pixels":
            (source / "1.bmp").write_bytes(encoded(noise(8, 8, 99), "BMP"))
        else:
            os.utime(source / "1.bmp", ns=(1, 1))
        make(source, tmp_path, valid=0)
        make(source, tmp_path / "fresh", valid=0)
        assert bytes_of(tmp_path, "x") == bytes_of(tmp_path / "fresh", "x")
        assert np.array_equal(images_of(tmp_path)["1.bmp"], noise(8, 8, 99 if change == "other pixels" else 1))


def stop_after(n_shards: int, source: Path, dumps: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Make a dump up to so many shards, and no further."""
    flush, left = writing.DumpWriter._flush, [n_shards]

    def failing(self: writing.DumpWriter, split: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        flush(self, split)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(writing.DumpWriter, "_flush", failing)
        make(source, dumps, valid=0, **options)


@pytest.mark.parametrize(
    "names",
    [
        ("Trainingsdaten/1.png", "Testdaten/1.png"),
        ("entrenamiento/1.png", "prueba/1.png"),
        ("訓練/1.png", "テスト/1.png"),
        ("traincrop/1.png", "testcrop/1.png"),
        ("tr/1.png", "te/1.png"),
        ("train_1.png", "test_1.png"),
        ("cats/train1.png", "cats/val-1.png"),
        ("train_1.png", "test_1.png", "preview.png"),
        ("cats/train_1.png", "cats/valid_1.png", "dogs/1.png"),
    ],
)
def test_what_looks_like_splits_is_asked_about(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Rather than mixed: folders of other languages, words written together, names of files."""
    source = write_folder(tmp_path / "mine", {name: encoded(noise(9, 9)) for name in names})
    with pytest.raises(CfgError, match=r"may be splits.*--splits random"):
        make(source, tmp_path)
    assert sum(make(source, tmp_path, splits="random", valid="1").counts.values()) == len(names)


@pytest.mark.parametrize("folders", [("bullet trains", "test tubes"), ("trains", "values"), ("trees", "teapots")])
def test_classes_that_sound_like_splits_stay_classes(tmp_path: Path, folders: tuple[str, str]) -> None:
    files = {f"{folder}/{k}.png": encoded(noise(9, 9)) for folder in folders for k in range(2)}
    dump = make(write_folder(tmp_path / "mine", files), tmp_path, valid="0")
    assert dump.label_names == tuple(sorted(folders))


@pytest.mark.parametrize("names", [("train_1.png", "bus_1.png"), ("test_1.png", "val_1.png", "1.png")])
def test_names_that_sound_like_one_split_stay_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Vehicles; and numbers of a test and its value: without a train there is nothing to take apart."""
    source = write_folder(tmp_path / "mine", {name: encoded(noise(9, 9)) for name in names})
    assert make(source, tmp_path, valid="0").counts == {"train": len(names)}
