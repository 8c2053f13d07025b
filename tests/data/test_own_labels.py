"""Labels of own pictures: from folders, tables and the source itself, and what becomes of pictures without one."""

from pathlib import Path
from typing import Any

import pytest
from test_images_recipe import make, noise, some, write_folder
from test_own_pictures import account_of, stop_after
from test_own_sources import PNGS
from upstream_pictures import encoded, write_tar

from data_scripts import decoding
from data_scripts.commands import command
from lvae_torch.data import writing
from lvae_torch.data.classes import ClassNames, labels_told
from lvae_torch.errors import CfgError, DataError

pytestmark = pytest.mark.usefixtures("at_once")


def test_class_folders_are_labels(tmp_path: Path) -> None:
    files = some(["train/cat/1.png", "train/dog/2.png", "train/cat/3.png", "test/4.png"])
    dump = make(write_folder(tmp_path / "mine", files), tmp_path)
    assert (dump.labels("train").tolist(), dump.labels("test"), dump.label_names) == ([0, 0, 1], None, ("cat", "dog"))
    assert make(tmp_path / "mine", tmp_path, labels="none").labels("train") is None


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_table_may_be_written_anywhere(tmp_path: Path, encoding: str) -> None:
    """Spreadsheets mark their encoding, tables with gaps write 3.0, macOS takes letters apart, numbers may be long."""
    source = write_folder(tmp_path / "mine", {f"\u00e4{k}.png": encoded(noise(9, 9)) for k in range(2)})
    table = tmp_path / "labels.csv"
    for labels, wanted in ((("3.0", "-1"), [3, -1]), ((str(10**25), "b"), [0, 1]), (("2.5", "1e3"), [1, 0])):
        lines = [f"a\u0308{k}.png,{label}\n" for k, label in enumerate(labels)]
        table.write_bytes(("file,label\n" + "".join(lines)).encode(encoding))
        assert make(source, tmp_path, valid="0", labels=str(table)).labels("train").tolist() == wanted
    table.write_text("file,label\n\u00e40.png,\n\u00e41.png,1\n", "utf-8")
    with pytest.raises(DataError, match=r"1 of 2 pictures have an empty label, the first \u00e40\.png"):
        make(source, tmp_path, valid="0", labels=str(table))


@pytest.mark.parametrize(("text", "options", "wanted"), [
    ("file,label\na/1.png,red\na/2.png,blue\n", {}, [1, 0]),
    ("\ufefffilename\tclass\tage\r\nC:\\a\\1.png\tx\t7\r\n2\ty\t9\r\n", {"label_column": ["age"]}, [7, 9]),
    ("2\nSmiling Young\n1.png -1  1\n2.png  1 -1\n", {"label_column": ["Smiling", "Young"]}, [[-1, 1], [1, -1]]),
])  # fmt: skip
def test_a_table_of_labels(tmp_path: Path, text: str, options: dict[str, Any], wanted: list[Any]) -> None:
    (tmp_path / "labels.csv").write_bytes(text.encode())
    source = write_folder(tmp_path / "mine", some(["a/1.png", "a/2.png"]))
    dump = make(source, tmp_path, valid=0, labels=str(tmp_path / "labels.csv"), **options)
    assert dump.labels("train").tolist() == wanted
    (tmp_path / "labels.csv").write_text("file,label\na/1.png,red\n")
    with pytest.raises(DataError, match=r"no line for 1 of 2 pictures, the first a/2\.png"):
        make(source, tmp_path, valid=0, labels=str(tmp_path / "labels.csv"))


def test_a_loose_picture_leaves_the_others_their_classes(tmp_path: Path) -> None:
    files = some(["cat/1.png", "dog/2.png", "cat/3.png", "preview.png"])
    dump = make(write_folder(tmp_path / "mine", files), tmp_path, valid=0)
    assert dict(zip(dump.names("train"), dump.labels("train"), strict=True)) == {
        "cat/1.png": 0, "cat/3.png": 0, "dog/2.png": 1, "preview.png": -1
    }  # fmt: skip
    assert account_of(dump)["notes"]["without a class: label -1"] == {"count": 1, "first": ["preview.png"]}
    assert labels_told(dump, "train") == "2 classes: no class 1, cat 2, dog 1"
    with pytest.raises(DataError, match=r"image 3 of train has label -1, and there are 2 classes"):
        ClassNames.of(dump, "train")


def test_a_table_with_gaps_keeps_the_classes_it_has(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    words = pa.array(["b", None, "a", "b", "a", "b"]).dictionary_encode()  # as pandas writes categories
    pq.write_table(pa.table({"image": PNGS, "label": words}), tmp_path / "x.parquet")
    dump = make(tmp_path / "x.parquet", tmp_path / "dumps", valid=0)
    assert (dump.labels("train").tolist(), dump.label_names) == ([1, -1, 0, 1, 0, 1], ("a", "b"))


@pytest.mark.parametrize(("classes", "wanted", "names"), [
    ({"1.cls": b"7", "2.cls": b"3\n"}, [7, 3], ()),
    ({"1.cls": b"7"}, [7, -1], ()),
    ({"1.cls": b"dog", "2.cls": b"cat"}, [1, 0], ("cat", "dog")),
])  # fmt: skip
def test_classes_of_webdataset(
    tmp_path: Path, classes: dict[str, bytes], wanted: list[int], names: tuple[str, ...]
) -> None:
    dump = make(write_tar(tmp_path / "x.tar", {**some(["1.png", "2.png"]), **classes}), tmp_path, valid=0)
    assert (dump.labels("train").tolist(), dump.label_names) == (wanted, names)


@pytest.mark.parametrize(("text", "told"), [
    ("1.png,x\n2.png,y\n", "does not say which column; its first line names 1.png, x"),
    ("file,label,label\n1.png,1,2\n2.png,1,2\n", "has two columns 'label'"),
    ("file,label\n1.png,NaN\n2.png,2.0\n", "have an empty label, the first 1.png"),
    (f'file,label\n1.png,"1\n2.png,2\n{"#" * 200_000}\n', r"labels\.csv: line 4: field larger.* not closed"),
    (",,\n,,\n", r"labels\.csv: has no lines of labels"),
    ("file,label\n,\n", r"labels\.csv: has no lines of labels"),
])  # fmt: skip
def test_tables_that_are_not_clear_are_told(tmp_path: Path, text: str, told: str) -> None:
    source = write_folder(tmp_path / "mine", some(["1.png", "2.png"]))
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises((CfgError, DataError), match=told):
        make(source, tmp_path, valid=0, labels=str(tmp_path / "labels.csv"))


def test_the_command_counts_the_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_folder(tmp_path / "mine", some(["cat/1.png", "dog/2.png", "cat/3.png"]))
    command(["images", "--source", str(source), "--name", "x", "--valid", "0", "--size", "8", "--dumps", str(tmp_path)])
    assert "labels of train: 2 classes: cat 2, dog 1\n" in capsys.readouterr().out


def test_a_conversion_that_goes_on_mixes_no_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pictures and the same table, of which another column is asked for, or a line was mended since."""
    monkeypatch.setitem(writing.SHARD_BYTES, "raw", 4 * 8 * 8 * 3)
    monkeypatch.setattr(decoding, "PAGE_IMAGES", 2)
    source = write_folder(tmp_path / "mine", {f"{k}.bmp": encoded(noise(8, 8, k), "BMP") for k in range(12)})
    table = tmp_path / "labels.csv"
    lines = [f"{k}.bmp,{k},{k % 2}\n" for k in range(12)]
    table.write_text("file,age,sex\n" + "".join(lines))
    stop_after(2, source, tmp_path, monkeypatch, labels=str(table), label_column=["age"])
    dump = make(source, tmp_path, valid=0, labels=str(table), label_column=["sex"])
    assert dump.labels("train").tolist() == [k % 2 for k in range(12)]
    for first in (5, 0):  # one picture's label is mended, while the conversion stands still
        stop_after(2, source, tmp_path, monkeypatch, labels=str(table), label_column=["age"])
        table.write_text("file,age,sex\n" + "".join([f"0.bmp,{first},0\n", *lines[1:]]))
        dump = make(source, tmp_path, valid=0, labels=str(table), label_column=["age"])
        assert dump.labels("train").tolist() == [first, *range(1, 12)]
    stop_after(2, source, tmp_path, monkeypatch, labels=str(table), label_column=["age"])
    begun = (tmp_path / ".x.unfinished" / "train_00000.npy").stat().st_ino
    make(source, tmp_path, valid=0, labels=str(table), label_column=["age"])
    assert (tmp_path / "x" / "train_00000.npy").stat().st_ino == begun, "with the same labels it goes on"
