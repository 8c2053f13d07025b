"""The account's counts of own pictures: what it says was taken is in the dump, for pictures and frames."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_images_recipe import make, noise, some, write_folder
from test_own_pictures import account_of
from upstream_pictures import encoded, write_zip

from data_scripts.account import FILE, lines_of
from lvae_torch.data.dump import Dump

pytestmark = pytest.mark.usefixtures("at_once")


def moving(n_frames: int, kind: str = "GIF", **how: Any) -> bytes:
    frames = [Image.fromarray(noise(8, 8, k)) for k in range(n_frames)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **how)


def counts(dump: Dump) -> tuple[int, int, dict[str, int]]:
    """Seen, taken, and left out by reason; what is said to be taken is in the dump, and nothing else is missing."""
    account = account_of(dump)
    left_out = {why: entry["count"] for why, entry in account["left_out"].items()}
    assert account["taken"] == sum(dump.counts.values())
    assert account["seen"] == account["taken"] + sum(left_out.values())
    return account["seen"], account["taken"], left_out


def test_a_limit_leaves_pictures_out(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "mine", some([f"train/{k}.png" for k in range(20)] + ["test/1.png", "test/2.png"]))
    dump = make(source, tmp_path, limit=3)
    assert counts(dump) == (22, 5, {"beyond --limit": 17})
    assert "seen 22, taken 5, left out 17" in list(lines_of(account_of(dump)))
    lines = (tmp_path / "x" / FILE).read_text().splitlines()
    names = {line.split("\t")[2] for line in lines if line.startswith("left out\tbeyond --limit")}
    assert names == {f"train/{k}.png" for k in range(20)} - set(dump.names("train"))
    assert counts(make(source, tmp_path)) == (22, 22, {})


def test_frames_count_as_pictures(tmp_path: Path) -> None:
    names = [f"train/{k}.png" for k in range(20)]
    source = write_folder(tmp_path / "mine", {**some(names), "test/a.gif": moving(2), "film.gif": moving(12)})
    outside = "in no folder that is called like a split"
    assert counts(make(source, tmp_path, frames="all", splits="folders")) == (34, 22, {outside: 12})
    assert counts(make(source, tmp_path, frames="first", splits="folders")) == (22, 21, {outside: 1})


def test_damaged_frames_count_as_pictures(tmp_path: Path) -> None:
    pages = moving(3, "TIFF", compression="tiff_adobe_deflate")
    with Image.open(write_folder(tmp_path, {"pages.tif": pages}) / "pages.tif") as picture:
        picture.seek(1)
        (start,), (length,) = picture.tag_v2[273], picture.tag_v2[279]  # of its one strip
    damaged = pages[:start] + bytes(length) + pages[start + length :]
    source = write_folder(tmp_path / "mine", {**some(["1.png"]), "pages.tif": damaged})
    assert counts(make(source, tmp_path, frames="all", valid=0, skip_damaged=1)) == (4, 3, {"damaged": 1})


def test_a_damaged_picture_among_frames_is_left_out(tmp_path: Path) -> None:
    """Also one whose place in the zip is damaged, so that not even its beginning can be read."""
    files = {**some(["1.png", "2.png"]), "a.gif": moving(3)}
    archive = write_zip(tmp_path / "mine.zip", files)
    data = bytearray(archive.read_bytes())
    data[data.index(b"a.gif") - 30] ^= 0xFF  # of the header before it
    archive.write_bytes(data)
    for frames in (None, "first", "all"):
        dump = make(archive, tmp_path, frames=frames, valid=0, skip_damaged=1)
        assert counts(dump) == (3, 2, {"damaged": 1})


def test_frames_stay_together_in_folders_of_any_name(tmp_path: Path) -> None:
    files = {f"set #1/{name}.gif": moving(3) for name in "abcdefghij"}
    dump = make(write_folder(tmp_path / "mine", files), tmp_path, frames="all")
    train, valid = ({name.rpartition("#")[0] for name in dump.names(split)} for split in ("train", "valid"))
    assert len(valid) == 1 and train | valid == set(files) and not train & valid
