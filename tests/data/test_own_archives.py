"""Archives as people have them: of one name in two folders, with links, several in one, with odd names."""

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from sites import Site
from test_images_recipe import make, noise, some, write_folder
from test_own_pictures import account_of, images_of
from upstream_pictures import encoded, write_tar, write_zip

import data_scripts
from data_scripts.sources.found import Place
from lvae_torch.errors import DataError

pytestmark = pytest.mark.usefixtures("at_once")


def member(name: str, data: bytes = b"", link: str = "") -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.size, info.linkname, info.type = len(data), link, tarfile.SYMTYPE if link else tarfile.REGTYPE
    return info, io.BytesIO(data)


@pytest.mark.parametrize("kind", ["tar.gz", "npz", "npz in a zip"])
def test_archives_of_one_name_are_not_mixed_up(tmp_path: Path, kind: str) -> None:
    """What has to be unpacked first lies apart, also where two are called alike."""
    source = tmp_path / "mine"
    for k, folder in enumerate("ab"):
        (source / folder).mkdir(parents=True)
        if kind == "tar.gz":
            with tarfile.open(source / folder / "x.tar.gz", "w:gz") as tar:
                tar.addfile(*member("1.png", encoded(noise(8, 8, k))))
        else:
            np.savez(source / folder / "x.npz", images=noise(8, 8, k)[None])
    if kind == "npz in a zip":
        source = Path(shutil.make_archive(str(tmp_path / "mine"), "zip", source))
    make(source, tmp_path, valid=0)
    name = "x.tar.gz/1.png" if kind == "tar.gz" else "x.npz/images/0"
    found = images_of(tmp_path)
    assert set(found) == {f"a/{name}", f"b/{name}"}
    assert all(np.array_equal(found[f"{folder}/{name}"], noise(8, 8, k)) for k, folder in enumerate("ab"))


def test_links_in_an_archive_lead_to_folders_and_other_links(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, link in (("chain.png", "again.png"), ("again.png", "real/cats/1.png"), ("dogs", "real/cats"),
                           ("loop", "."), ("real/back", "../real"), ("gone", "nowhere")):  # fmt: skip
            tar.addfile(*member(name, link=link))
        for k in (1, 2):
            tar.addfile(*member(f"real/cats/{k}.png", encoded(noise(8, 8, k))))
    dump = make(tmp_path / "x.tar", tmp_path, valid=0)
    found = images_of(tmp_path)
    assert set(found) == {"chain.png", "again.png"} | {f"{f}/{k}.png" for f in ("dogs", "real/cats") for k in (1, 2)}
    assert np.array_equal(found["chain.png"], noise(8, 8, 1)) and np.array_equal(found["dogs/2.png"], noise(8, 8, 2))
    left_out = {why: set(entry["first"]) for why, entry in account_of(dump)["left_out"].items()}
    assert left_out == {
        "links that lead back to a folder they lie in": {"loop", "real/back"},
        "links inside an archive to what is not in it": {"gone"},
    }
    assert account_of(dump)["seen"] == 9


def test_several_tars_in_one_file_are_refused(tmp_path: Path) -> None:
    """Most programs read the first and pass over the rest."""
    one, two = (write_tar(tmp_path / f"{k}.tar", some([f"{k}.png"])).read_bytes() for k in (1, 2))
    (tmp_path / "both.tar").write_bytes(one + two)
    with pytest.raises(DataError, match=r"both\.tar: .*several tars in one file\? .*--ignore-zeros"):
        make(tmp_path / "both.tar", tmp_path)


def test_numbers_of_any_length_are_names(tmp_path: Path) -> None:
    dump = make(write_zip(tmp_path / "x.zip", some(["1" * 5000 + ".png", "10.png", "2.png"])), tmp_path, valid=0)
    assert dump.names("train")[-2:] == ["2.png", "10.png"]


def test_what_must_be_unpacked_first_is_told(tmp_path: Path) -> None:
    files = {"a.7z": b"7z\xbc\xaf\x27\x1c", "b.png.gz": b"\x1f\x8b", "c.dcm": bytes(128) + b"DICM"}
    dump = make(write_folder(tmp_path / "mine", {**some(["1.png"]), **files}), tmp_path, valid=0)
    told = {entry["first"][0]: why for why, entry in account_of(dump)["left_out"].items()}
    assert "unpack it" in told["a.7z"] and "unpack them" in told["b.png.gz"] and "convert it" in told["c.dcm"]


KINDS = ["tar.gz", "tar.xz", "tar.bz2", "npz", "tar.gz in a zip"]


def packed(path: Path, kind: str) -> Path:
    """An archive whose pictures must be unpacked first: three of noise, 360 KB in all."""
    source = path / "mine"
    if kind == "npz":
        np.savez(f"{source}.npz", images=np.stack([noise(200, 200, k) for k in range(3)]))
        return Path(f"{source}.npz")
    source.mkdir()
    files = {f"{k}.png": encoded(noise(200, 200, k)) for k in range(3)}
    mode = {"tar.gz": "gztar", "tar.xz": "xztar", "tar.bz2": "bztar"}[kind.partition(" ")[0]]
    archive = Path(shutil.make_archive(str(source), mode, write_folder(source, files)))
    return write_zip(path / "mine.zip", {archive.name: archive.read_bytes()}) if "zip" in kind else archive


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["little room", "no room"])
def test_a_full_disk_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, how: str) -> None:
    """Told before the last room is taken, or by the disk itself, which here is one that is always full."""
    source = packed(tmp_path, kind)
    usage = shutil.disk_usage(tmp_path)._replace(free=5_000 if how == "little room" else 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    if how == "no room":
        monkeypatch.setattr(Place, "unpacked", lambda self, what: Path("/dev/full"))
    with pytest.raises(DataError, match=r"cannot be written \(No space left.*mine.* is unpacked\. Make room") as told:
        make(source, tmp_path)
    assert "damaged" not in str(told.value)
    assert not (tmp_path / ".raw" / "images" / "unpacked").exists()


def test_a_full_disk_leaves_a_download_that_is_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_site: Site
) -> None:
    source = packed(tmp_path, "tar.gz")
    empty_site.files = {source.name: source.read_bytes()}
    monkeypatch.setattr(Place, "unpacked", lambda self, what: Path("/dev/full"))
    with pytest.raises(DataError, match=r"cannot be written \(No space left"):
        data_scripts.make("images", tmp_path, source=f"{empty_site.url}/{source.name}", name="x", size="8")
    (there,) = (tmp_path / ".raw" / "images").glob("*_mine.tar.gz")
    assert there.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_told_where_something_is_unpacked(tmp_path: Path, kind: str) -> None:
    source = packed(tmp_path, kind)
    data, half = source.read_bytes(), source.stat().st_size // 2
    source.write_bytes(data[:half] + bytes(64) + data[half + 64 :])
    with pytest.raises(DataError, match=r"mine.*damaged"):
        make(source, tmp_path)


def test_damage_that_hides_the_tar_is_told_as_damage(tmp_path: Path) -> None:
    """One bit moves the start of the text in a bzip2 block, whose checksum is read a megabyte later."""
    files = {**some(["1.png"]), "ones.bin": b"\xff" * 2**22}
    source = Path(shutil.make_archive(str(tmp_path / "mine"), "bztar", write_folder(tmp_path / "mine", files)))
    data = bytearray(source.read_bytes())
    data[16] ^= 1
    source.write_bytes(data)
    with pytest.raises(DataError, match=r"mine.*damaged"):
        make(source, tmp_path)
