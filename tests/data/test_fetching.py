"""``python -m data_scripts``: fetching over a bad line, refusing what is not the file, and the dumps that come out."""

import base64
import gzip
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sites import Site, served

from data_scripts import download
from data_scripts.download import fetch, fetch_url
from data_scripts.progress import progress
from data_scripts.upstream import Source
from lvae_torch.errors import CfgError, DataError

BLOB = np.random.default_rng(0).bytes(300_000)
PAGE = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


BLOB_SOURCE = Source("a.bin", len(BLOB), sha256(BLOB))


@pytest.fixture
def site(empty_site: Site) -> Site:
    """A server that holds one file."""
    empty_site.files["a.bin"] = BLOB
    return empty_site


# --- fetching ---------------------------------------------------------------------------------------------------------


def test_a_file_comes_whole(site: Site, tmp_path: Path) -> None:
    path = fetch(BLOB_SOURCE, [site.url + "/"], tmp_path).path
    assert path == tmp_path / "a.bin"
    assert path.read_bytes() == BLOB
    assert not path.with_name("a.bin.part").exists()
    assert fetch(BLOB_SOURCE, [site.url], tmp_path).path == path
    assert site.asked == ["a.bin"], "what is there and whole is not fetched again"


def test_a_cut_connection_is_continued_where_it_ended(site: Site, tmp_path: Path) -> None:
    site.cuts = [100_000, 50_000]
    assert fetch(BLOB_SOURCE, [site.url], tmp_path).path.read_bytes() == BLOB
    assert site.asked == ["a.bin", "a.bin bytes=100000-", "a.bin bytes=150000-"]


def test_any_number_of_cuts_is_borne_while_something_comes(site: Site, tmp_path: Path) -> None:
    site.cuts = [20_000] * 14
    assert fetch(BLOB_SOURCE, [site.url], tmp_path).path.read_bytes() == BLOB
    assert len(site.asked) == 15 > download.TRIES


def test_another_process_continues_what_was_left(site: Site, tmp_path: Path) -> None:
    site.cuts = [70_000, *[0] * download.TRIES]
    with pytest.raises(DataError, match="what came is kept"):
        fetch(BLOB_SOURCE, [site.url], tmp_path)
    assert (tmp_path / "a.bin.part").stat().st_size == 70_000
    assert not (tmp_path / "a.bin").exists()
    assert fetch(BLOB_SOURCE, [site.url], tmp_path).path.read_bytes() == BLOB
    assert site.asked[-1] == "a.bin bytes=70000-"


def test_a_server_that_cannot_continue_begins_again(site: Site, tmp_path: Path) -> None:
    site.ranges, site.cuts = False, [100_000]
    assert fetch(BLOB_SOURCE, [site.url], tmp_path).path.read_bytes() == BLOB


def test_a_server_that_continues_elsewhere_is_not_believed(site: Site, tmp_path: Path) -> None:
    site.continues_at, site.cuts = 7, [100_000]
    assert fetch(BLOB_SOURCE, [site.url], tmp_path).path.read_bytes() == BLOB
    assert site.asked == ["a.bin", "a.bin bytes=100000-", "a.bin"]


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * len(BLOB), b"x" * (len(BLOB) + 1)])
def test_what_was_left_of_another_file_is_thrown_away(site: Site, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "a.bin.part").write_bytes(left)
    assert fetch(BLOB_SOURCE, [site.url], tmp_path).path.read_bytes() == BLOB


def test_a_part_of_unknown_size_may_be_all(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(BLOB)
    assert fetch(Source("a.bin"), [site.url], tmp_path).path.read_bytes() == BLOB
    assert site.asked == [f"a.bin bytes={len(BLOB)}-"]


def test_a_kept_file_that_was_damaged_is_fetched_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(BLOB[:-1] + b"x")
    assert fetch(BLOB_SOURCE, [site.url], tmp_path).path.read_bytes() == BLOB


def test_a_busy_server_is_asked_again(site: Site, tmp_path: Path) -> None:
    site.statuses = [503, 429, 500]
    assert fetch(BLOB_SOURCE, [site.url], tmp_path).path.read_bytes() == BLOB


def test_a_server_that_stays_busy_is_given_up(site: Site, tmp_path: Path) -> None:
    site.statuses = [503] * 99
    with pytest.raises(DataError, match=r"a\.bin: HTTP Error 503.*\(5 tries"):
        fetch(BLOB_SOURCE, [site.url], tmp_path)
    assert len(site.asked) == download.TRIES


def test_a_clear_no_is_not_asked_twice(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"b\.bin: the server answers 404.*\n.*--mirror"):
        fetch(Source("b.bin"), [site.url], tmp_path)
    assert site.asked == ["b.bin"]


def test_nobody_there_is_told(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:1/a\.bin: .*refused"):
        fetch(BLOB_SOURCE, ["http://127.0.0.1:1"], tmp_path)


@pytest.mark.parametrize("source", [BLOB_SOURCE, Source("a.bin")])
def test_a_web_page_is_not_taken_for_data(site: Site, tmp_path: Path, source: Source) -> None:
    site.files["a.bin"] = PAGE
    with pytest.raises(DataError, match="web page instead of the file"):
        fetch(source, [site.url], tmp_path)
    assert not list(tmp_path.glob("a.bin*[!k]")), "only the lock may stay"


def test_another_length_is_refused_before_it_is_fetched(site: Site, tmp_path: Path) -> None:
    site.files["a.bin"] = BLOB + b"x"
    with pytest.raises(DataError, match="answers 300,001 bytes, but the file has 300,000"):
        fetch(BLOB_SOURCE, [site.url], tmp_path)


def test_another_length_is_refused_where_it_was_not_said(site: Site, tmp_path: Path) -> None:
    site.says_length = False
    assert fetch(BLOB_SOURCE, [site.url], tmp_path / "right").path.read_bytes() == BLOB
    for wrong in (BLOB + b"x", BLOB[:-1]):
        site.files["a.bin"] = wrong
        with pytest.raises(DataError, match=r"bytes, but a\.bin has 300,000"):
            fetch(BLOB_SOURCE, [site.url], tmp_path / "wrong")
    assert not (tmp_path / "wrong" / "a.bin").exists()


def test_a_wrong_checksum_is_refused_and_the_next_place_tried(site: Site, tmp_path: Path) -> None:
    site.files = {"bad/a.bin": BLOB[:-1] + b"x", "good/a.bin": BLOB}
    with pytest.raises(DataError, match=r"bad/a\.bin: .*sha256"):
        fetch(BLOB_SOURCE, [f"{site.url}/bad"], tmp_path)
    assert not list(tmp_path.glob("a.bin*[!k]"))
    places = [str(tmp_path / "nowhere"), f"{site.url}/bad", f"{site.url}/good"]
    assert fetch(BLOB_SOURCE, places, tmp_path).path.read_bytes() == BLOB


def test_two_at_once_fetch_once(site: Site, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch(BLOB_SOURCE, [site.url], tmp_path).path, range(4)))
    assert {path.read_bytes() for path in paths} == {BLOB}
    assert site.asked == ["a.bin"]


def test_too_little_room_is_told_before_anything_is_fetched(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    with pytest.raises(DataError, match="300,000 bytes are needed and 1,000 are free"):
        fetch(BLOB_SOURCE, [site.url], tmp_path)


def test_a_folder_is_read_in_place(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(BLOB)
    assert fetch(BLOB_SOURCE, [str(tmp_path)], tmp_path / "raw").path == tmp_path / "a.bin"
    assert not (tmp_path / "raw").exists()


def test_a_wrong_file_in_a_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    for wrong in (BLOB[:-1], BLOB + b"x", BLOB[:-1] + b"x"):
        (tmp_path / "a.bin").write_bytes(wrong)
        with pytest.raises(DataError, match=rf"{tmp_path}/a\.bin: "):
            fetch(BLOB_SOURCE, [str(tmp_path)], tmp_path / "raw")
        assert (tmp_path / "a.bin").read_bytes() == wrong


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"not gzip",
        gzip.compress(BLOB, mtime=0)[:-9],
        gzip.compress(BLOB[:-1], mtime=0),
        gzip.compress(b"0" * 10_000_000, mtime=0),
    ],
    ids=["empty", "no gzip", "cut off", "too short", "bomb"],
)
def test_a_damaged_gzip_is_refused(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "a.bin.gz").write_bytes(damaged)
    with pytest.raises(DataError, match=r"a\.bin\.gz: (damaged|.* bytes, but)"):
        fetch(Source("a.bin", len(BLOB), sha256(BLOB), gzip_too=True), [str(tmp_path)], tmp_path / "raw")


def test_other_kinds_of_urls_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CfgError, match="http"):
        fetch(BLOB_SOURCE, [f"file://{tmp_path}"], tmp_path)


@pytest.mark.parametrize("address", ["http:///a.bin", "http://host:port/a.bin", "http://host:99999/a", "http://[::1/a"])
def test_addresses_that_are_none_are_told(tmp_path: Path, address: str) -> None:
    with pytest.raises(CfgError, match="and a host"):
        fetch(BLOB_SOURCE, [address], tmp_path)


def test_a_password_goes_to_nobody_else(site: Site, tmp_path: Path) -> None:
    """A server may send to another one, as those of large files do; and back to itself."""
    with served(Site()) as other:
        other.files["b"] = BLOB
        site.moved = {"a": "/a.bin", "b": f"{other.url}/b"}
        for name in "ab":
            fetch_url(f"{site.url.replace('://', '://me:p@ss%2F@')}/{name}", tmp_path)
    wanted = f"Basic {base64.b64encode(b'me:p@ss/').decode()}"
    assert (site.asked, site.passwords) == (["a", "a.bin", "b"], [wanted] * 3)
    assert (other.asked, other.passwords) == (["b"], [""])


def test_what_an_address_keeps_secret_is_not_shown(site: Site, tmp_path: Path) -> None:
    address = site.url.replace("://", "://me:s3@cret@") + "/gone.zip?token=s3@cret#s3@cret"
    with pytest.raises(DataError, match=r"/gone\.zip\?\.\.\.: the server answers 404") as told:
        fetch_url(address, tmp_path)
    assert "cret" not in str(told.value) and site.asked == ["gone.zip?token=s3@cret"]


def test_addresses_are_taken_as_people_write_them(site: Site, tmp_path: Path) -> None:
    site.files["my%20pictures%C3%A4.zip"] = BLOB
    found = fetch_url(f"{site.url.replace('http', 'HTTP')}/my picturesä.zip", tmp_path)
    assert found.path.read_bytes() == BLOB and found.path.name.endswith("my picturesä.zip")


def test_a_log_gets_a_line_for_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("a.bin", 1000, "bytes", done=250) as advance:
        for _ in range(75):
            advance(10)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 8
    assert (lines[0], lines[-1]) == ("a.bin: 300 of 1,000 bytes (30%)", "a.bin: 1,000 of 1,000 bytes (100%)")
