"""Zips, tars and folders: what leads out of them, blows up or is damaged is refused by name; the rest comes whole."""

import io
import os
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from upstream import tar_gz
from upstream_pictures import STRAY, write_tar, write_zip

from data_scripts import archives, spans
from data_scripts.archives import open_archive, pictures_of
from data_scripts.spans import BadFileError, Span
from lvae_torch.errors import DataError

FILES = {"a/1.png": b"one" * 500, "a/b/2.png": b"", "3.txt": bytes(range(256)) * 9}


def write_tar_gz(path: Path, files: dict[str, bytes]) -> Path:
    path.write_bytes(tar_gz(files))
    return path


def write_stored_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


WRITERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "x.zip": write_zip,
    "stored.zip": write_stored_zip,
    "x.tar": write_tar,
    "x.tar.gz": write_tar_gz,
    "x.tgz": write_tar_gz,
    "folder": write_folder,
}


def read_all(path: Path) -> dict[str, bytes]:
    with open_archive(path) as archive:
        return {name: archive.read(name) for name in archive.names}


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_in_comes_out(tmp_path: Path, name: str) -> None:
    assert read_all(WRITERS[name](tmp_path / name, FILES)) == FILES


@pytest.mark.parametrize("name", ["x.zip", "stored.zip", "x.tar", "folder"])
def test_any_process_can_read_a_picture_by_its_place(tmp_path: Path, name: str) -> None:
    with open_archive(WRITERS[name](tmp_path / name, FILES)) as archive:
        places = {member: archive.span(member) for member in archive.names}
    assert {member: span.read() for member, span in places.items()} == FILES


def test_pictures_in_a_packed_tar_cannot_be_reached(tmp_path: Path) -> None:
    with (
        open_archive(write_tar_gz(tmp_path / "x.tar.gz", FILES)) as archive,
        pytest.raises(DataError, match=r"x\.tar\.gz: .*unpack it to \.tar"),
    ):
        archive.span("a/1.png")


def test_a_zip_may_have_a_long_head_before_a_file(tmp_path: Path) -> None:
    """More than is read at first, beside the name."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo("1.png")
        info.extra = b"\x99\x99\x00\x10" + bytes(4096)
        archive.writestr(info, FILES["3.txt"])
    assert read_all(tmp_path / "x.zip") == {"1.png": FILES["3.txt"]}


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    first, second = {"1.png": b"first"}, {"1.png": b"another one"}
    assert read_all(write_zip(tmp_path / "x.zip", first)) == first
    (tmp_path / "x.zip").unlink()
    assert read_all(write_zip(tmp_path / "x.zip", second)) == second


# --- names and links --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["x.zip", "x.tar", "x.tar.gz"])
@pytest.mark.parametrize(
    "name", ["/etc/x.png", "../x.png", "a/../../x.png", "a/..", "..\\x.png", "a\\..\\x.png", "\\x.png", "C:\\x.png",
             "c:x.png", "C:/x.png", "//host/x.png"],
)  # fmt: skip
def test_names_that_lead_out_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    path = WRITERS[kind](tmp_path / kind, {"1.png": b"x", name: b"x"})
    with pytest.raises(DataError, match=rf"{kind}: its member '.*leads out of the archive"):
        read_all(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_links_in_tars_are_refused(tmp_path: Path, kind: bytes, mode: str) -> None:
    path = tmp_path / ("x.tar" if mode == "w" else "x.tar.gz")
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        info = tarfile.TarInfo("1.png")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(DataError, match=r"its member '1\.png' is a link"):
        read_all(path)


def test_links_in_zips_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("1.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match=r"its member '1\.png' is a link"):
        read_all(tmp_path / "x.zip")


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_devices_and_pipes_in_tars_are_refused(tmp_path: Path, kind: bytes, mode: str) -> None:
    path = tmp_path / ("x.tar" if mode == "w" else "x.tar.gz")
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        info = tarfile.TarInfo("1.png")
        info.type = kind
        tar.addfile(info)
    with pytest.raises(DataError, match=r"its member '1\.png' is a device or a pipe"):
        read_all(path)


def test_folders_and_pipes_are_no_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        info = tarfile.TarInfo("3.png")
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    os.mkfifo(write_folder(tmp_path / "folder", {"1.txt": b"x"}) / "2.png")
    assert (read_all(tmp_path / "x.tar"), read_all(tmp_path / "folder")) == ({}, {"1.txt": b"x"})


# --- bombs, damage ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITERS)
def test_a_member_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(spans, "MAX_MEMBER", 100_000)
    path = WRITERS[name](tmp_path / name, {"bomb.png": bytes(100_001)})
    with pytest.raises(DataError, match=r"bomb\.png.*more than 100,000 bytes"):
        read_all(path)


@pytest.mark.parametrize("said", [10, 1000, 3 * 2**20])
def test_a_zip_that_hides_its_size_is_not_unpacked_whole(tmp_path: Path, said: int) -> None:
    data = write_zip(tmp_path / "x.zip", {"inner.zip": bytes(40_000_000)}).read_bytes()
    size = (40_000_000).to_bytes(4, "little")
    (tmp_path / "x.zip").write_bytes(data.replace(size, said.to_bytes(4, "little")))
    with open_archive(tmp_path / "x.zip") as archive:
        span, found = archive.span("inner.zip"), 0
    assert isinstance(span, Span)
    with pytest.raises(BadFileError, match=f"should have {said:,}"):
        for piece in span.pieces():
            found += len(piece)
    assert found <= said


@pytest.mark.parametrize("n", [0, 1, 300, spans.PIECE - 1, spans.PIECE, 3 * spans.PIECE, 3 * spans.PIECE + 7])
@pytest.mark.parametrize("kind", ["zeros", "noise"])
def test_a_large_file_comes_in_pieces(tmp_path: Path, n: int, kind: str) -> None:
    wanted = bytes(n) if kind == "zeros" else random.Random(n).randbytes(n)
    with open_archive(write_zip(tmp_path / "x.zip", {"1.bin": wanted})) as archive:
        span = archive.span("1.bin")
    assert isinstance(span, Span)
    pieces = list(span.pieces())
    assert b"".join(pieces) == wanted and max(map(len, pieces), default=0) <= spans.PIECE


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "folder"])
@pytest.mark.parametrize("limit", ["MOST_MEMBERS", "ALWAYS_ALLOWED"])
def test_archives_of_no_datasets_measure_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: str
) -> None:
    path = WRITERS[name](tmp_path / name, {f"{k}.png": bytes(400) for k in range(11)})
    monkeypatch.setattr(archives, "MOST_EXPANSION", 0)
    assert len(read_all(path)) == 11
    monkeypatch.setattr(archives, limit, 10 if limit == "MOST_MEMBERS" else 10 * 400)
    with pytest.raises(DataError, match=r"holds 11 files of 4,400 bytes or more, which is no dataset's measure"):
        read_all(path)


def test_a_zip_that_hides_its_size_is_refused(tmp_path: Path) -> None:
    """It says 10 bytes and unpacks to 10 million: only a little more than said is ever unpacked."""
    data = write_zip(tmp_path / "x.zip", {"bomb.png": bytes(10_000_000)}).read_bytes()
    size = (10_000_000).to_bytes(4, "little")
    assert data.count(size) == 2
    (tmp_path / "x.zip").write_bytes(data.replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"bomb\.png: damaged.*11 bytes, should have 10"):
        read_all(tmp_path / "x.zip")


@pytest.mark.parametrize("name", ["x.zip", "stored.zip", "x.tar", "x.tar.gz"])
def test_a_cut_off_archive_is_told(tmp_path: Path, name: str) -> None:
    """Also between two files, where a tar looks whole."""
    data = WRITERS[name](tmp_path / name, FILES).read_bytes()
    end = 512 * (1 + 3 + 1 + 1 + 5) + 512 if name == "x.tar" else len(data)  # what follows in a tar is empty
    for length in (*range(0, end, 64), end - 1):
        (tmp_path / name).write_bytes(data[:length])
        with pytest.raises(DataError, match=name):
            read_all(tmp_path / name)


def test_a_tar_with_a_damaged_head_is_not_taken_to_end_there(tmp_path: Path) -> None:
    data = bytearray(write_tar(tmp_path / "x.tar", FILES).read_bytes())
    data[512 * 4 + 150] ^= 1
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.tar: .*the end is missing"):
        read_all(tmp_path / "x.tar")


@pytest.mark.parametrize("name", ["x.zip", "stored.zip", "x.tar.gz"])
def test_a_wrong_byte_is_told_or_does_no_harm(tmp_path: Path, name: str) -> None:
    """These have check sums; a plain tar has none of its files, whose formats have."""
    data = WRITERS[name](tmp_path / name, FILES).read_bytes()
    told, step = 0, max(1, len(data) // 300)
    for k in range(0, len(data), step):
        (tmp_path / name).write_bytes(data[:k] + bytes([data[k] ^ 0x55]) + data[k + 1 :])
        try:
            found = read_all(tmp_path / name)
        except DataError as error:
            assert name in str(error)
            told += 1
        else:
            # A changed name or size of nothing is not told; changed bytes are.
            assert set(found.values()) <= set(FILES.values())
    assert told > len(data) / step / 2


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tgz", "x.rar", "x"])
@pytest.mark.parametrize("data", [b"", b"\n<html><body>Please log in</body></html>" * 40, None])
def test_what_is_no_archive_is_told(tmp_path: Path, name: str, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=rf"{name}: "):
        read_all(tmp_path / name)


def test_locked_and_strangely_packed_zips_are_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("1.png", b"x" * 100)
    with pytest.raises(DataError, match=r"1\.png: encrypted, or packed in an unusual way"):
        read_all(tmp_path / "x.zip")
    data = bytearray(write_zip(tmp_path / "x.zip", {"1.png": b"x"}).read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"1\.png: encrypted"):
        read_all(tmp_path / "x.zip")


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["x.zip", "x.tar", "folder"])
def test_pictures_come_by_number_and_without_what_lies_beside_them(tmp_path: Path, kind: str) -> None:
    names = ["b/10.png", "b/2.png", "b/2.JPG", "a/100.jpeg", "a/20.webp", "1.png", "00003.png", "b/x.gif", "b/png",
             "b/.hidden.png", ".git/1.png", "b/2.png.txt"]  # fmt: skip
    path = WRITERS[kind](tmp_path / kind, {**STRAY, **dict.fromkeys(names, b"x")})
    with open_archive(path) as archive:
        found = pictures_of(archive)
    assert found == ["1.png", "00003.png", "a/20.webp", "a/100.jpeg", "b/2.JPG", "b/2.png", "b/10.png"]


def test_the_names_in_a_tar_may_begin_with_a_dot(tmp_path: Path) -> None:
    """As ``tar -cf x.tar .`` makes them."""
    write_folder(tmp_path / "folder", {"1.png": b"x", ".2.png": b"x"})
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "folder", arcname=".")
        tar.addfile(tarfile.TarInfo("./a/3.png"), io.BytesIO())
        tar.addfile(tarfile.TarInfo("./4.png"), io.BytesIO())
    with open_archive(tmp_path / "x.tar") as archive:
        assert [name.removeprefix("./") for name in pictures_of(archive)] == ["1.png", "4.png", "a/3.png"]


def test_an_archive_without_pictures_is_told(tmp_path: Path) -> None:
    with (
        open_archive(write_zip(tmp_path / "x.zip", STRAY)) as archive,
        pytest.raises(DataError, match=r"x\.zip: holds no pictures \(\.bmp, \.jpeg"),
    ):
        pictures_of(archive)
