"""Addresses as sources, folders of dumps for several people, and names that are taken."""

import base64
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sites import Site
from test_images_recipe import noise, some
from test_own_pictures import images_of
from upstream_pictures import write_zip

import data_scripts
import lvae_torch.data
from data_scripts.download import shown
from lvae_torch.data.run_data import RunData
from lvae_torch.data.section import DataSection
from lvae_torch.data.sharing import locked, share
from lvae_torch.errors import DataError

pytestmark = pytest.mark.usefixtures("at_once")
PIXELS = np.stack([noise(8, 8, k) for k in range(2)])


def test_an_address_is_a_source_and_passwords_are_kept(empty_site: Site, tmp_path: Path, capsys: Any) -> None:
    empty_site.files["pictures.zip"] = write_zip(tmp_path / "x.zip", some(["1.png", "2.png"])).read_bytes()
    address = f"{empty_site.url}/pictures.zip"
    data_scripts.make("images", tmp_path, source=address, name="x", size="8", valid=0)
    assert len(images_of(tmp_path)) == 2 and "sha256" in capsys.readouterr().err
    assert shown("http://me:secret@host/a b@c.zip") == "http://host/a b@c.zip"
    secret = address.replace("://", "://me:s3cret@")
    with pytest.raises(DataError) as told:
        data_scripts.make("images", tmp_path, source=secret.replace(".zip", ".tar"), name="x", size="8")
    assert "s3cret" not in str(told.value) and base64.b64encode(b"me:s3cret").decode() not in str(told.value)


def test_a_folder_of_a_group_stays_one(tmp_path: Path) -> None:
    dumps = tmp_path / "dumps"
    dumps.mkdir()
    dumps.chmod(0o2775)
    data_scripts.make("toy2d", dumps)
    for path in [dumps / ".raw", dumps / ".raw" / "toy2d.lock", *dumps.glob("toy2d_1a/*"), dumps / "toy2d_1a"]:
        mode = path.stat().st_mode
        assert mode & stat.S_IWGRP and mode & stat.S_IROTH and (mode & stat.S_ISGID or path.is_file()), path
    dumps.chmod(0o755)
    (dumps / "own").touch(mode=0o600)
    share(dumps / "own")
    assert stat.S_IMODE((dumps / "own").stat().st_mode) == 0o600, "nobody shares that folder"


@pytest.mark.parametrize("kind", ["dangling link", "link", "file"])
def test_a_name_that_is_no_folder_is_told_before_the_work(tmp_path: Path, kind: str) -> None:
    if kind == "file":
        (tmp_path / "toy2d_1a").write_text("precious")
    else:
        (tmp_path / "toy2d_1a").symlink_to(tmp_path if kind == "link" else tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"toy2d_1a: is a (link|file), where the dump is to be.*--name"):
        data_scripts.make("toy2d", tmp_path)


def test_file_systems_without_locks_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr("filelock.FileLock.acquire", unknown)
    with pytest.raises(DataError, match="knows no locks"), locked(tmp_path / "x.lock", "x", wait=False):
        pass


def test_a_split_that_is_not_there_names_the_key_and_the_choices(tmp_path: Path) -> None:
    lvae_torch.data.write_dump("mine", {"train": PIXELS, "valid": PIXELS}, tmp_path)
    with pytest.raises(DataError, match=r"\[data\] val_split = test: .* has train, valid\."):
        RunData.of(DataSection(dataset="mine", dumps=str(tmp_path)), 2, 0)
