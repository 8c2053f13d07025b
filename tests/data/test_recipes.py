"""Every dump of ``data_scripts``, made from small files in upstream's formats: from a folder, and over a bad line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disks import full_disk
from making import accept_small_binarized_mnist, assert_equal, bytes_of, contents
from recipe_cases import ALIASES, CASES
from sites import Site

import data_scripts
from data_scripts import imagenet, mnist
from data_scripts.commands import command
from data_scripts.recipes import RECIPES, VARIANTS, catalogue
from lvae_torch.cli import main
from lvae_torch.data.catalogue import CATALOGUE
from lvae_torch.data.dump import Dump
from lvae_torch.errors import CfgError, DataError

Mirrors = Callable[[Callable[[Path], Any]], tuple[Path, Any]]
MANUAL = [name for name, recipe in RECIPES.items() if recipe.access == "manual"]


@pytest.fixture
def made(
    small_mirror: Mirrors, tmp_path: Path, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Path, Any]]:
    """Lays out the files of a case, ready to be made from; gives their folder and content."""

    def lay_out(name: str) -> tuple[Path, Any]:
        folder, content = small_mirror(CASES[name].lay_out)
        if name.startswith("binarized_mnist"):
            accept_small_binarized_mnist(monkeypatch, folder)
        return folder, content

    return lay_out


def test_the_catalogue_is_what_the_recipes_say(repository: Path) -> None:
    assert (repository / "lvae_torch" / "data" / "catalogue.json").read_text() == catalogue(), "make catalogue"


def test_every_dump_that_has_a_name_says_what_it_looks_like() -> None:
    assert [name for name in VARIANTS if name not in CATALOGUE] == []
    families = {"celeba64", "deepul", "toy2d", "images"}  # each of whose dumps is a variant
    assert [name for name in RECIPES if name not in CATALOGUE and name not in families] == []


def test_there_is_a_case_for_every_dump() -> None:
    assert {*CASES, *ALIASES, "images"} == {*RECIPES, *VARIANTS}


@pytest.mark.parametrize("name", CASES)
def test_what_was_put_in_comes_out(
    name: str, made: Callable[..., tuple[Path, Any]], tmp_path: Path, empty_site: Site
) -> None:
    case, (folder, content) = CASES[name], made(name)
    assert data_scripts.make(name, tmp_path, mirror=str(folder), **case.options) == name
    dump = Dump.open(tmp_path, name)
    like = name if name in CATALOGUE else name.removesuffix("_valid").removesuffix("_small")
    assert (dump.image_shape, dump.n_levels) == CATALOGUE[like]
    if wanted := case.wanted(content):
        assert_equal(contents(tmp_path, name), wanted)
    # Again, with each file's connection cut in the middle: the same to the byte.
    empty_site.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    empty_site.halves = True
    data_scripts.make(name, tmp_path / "http", mirror=empty_site.url, **case.options)
    assert bytes_of(tmp_path / "http", name) == bytes_of(tmp_path, name)
    fetched = empty_site.asked[::2]
    assert empty_site.asked[1::2] == [f"{file} bytes={len(empty_site.files[file]) // 2}-" for file in fetched]
    assert not (tmp_path / "http" / ".raw" / name).exists()


@pytest.mark.parametrize("alias", ALIASES)
def test_a_recipe_makes_its_first_variant(alias: str, made: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    folder, _ = made(ALIASES[alias])
    assert data_scripts.make(alias, tmp_path, mirror=str(folder)) == ALIASES[alias]


# --- splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parts", "whole"),
    [
        ("mnist_efficient_vdvae", ("valid", "test"), ("mnist_pad32", "test")),
        ("omniglot_valid", ("train", "valid"), ("omniglot", "train")),
        ("cifar10_efficient_vdvae", ("valid", "test"), ("cifar10", "test")),
        ("cifar10_vdvae", ("train", "valid"), ("cifar10", "train")),
        ("imagenet32_oord_vdvae", ("train", "valid"), ("imagenet32_oord", "train")),
    ],
)
def test_splits_share_nothing_and_lose_nothing(
    name: str, parts: tuple[str, str], whole: tuple[str, str], made: Callable[..., tuple[Path, Any]], tmp_path: Path
) -> None:
    folder, _ = made(name)
    for dump in (name, whole[0]):
        data_scripts.make(dump, tmp_path, mirror=str(folder))
    divided, together = contents(tmp_path, name), contents(tmp_path, whole[0])[whole[1]].images
    images = [image.tobytes() for part in parts for image in divided[part].images]
    assert len(set(images)) == len(images) == len(together)
    assert set(images) == {image.tobytes() for image in together}


def test_who_is_held_out_depends_on_the_seed_and_may_be_told(
    made: Callable[..., tuple[Path, Any]], tmp_path: Path
) -> None:
    folder, content = made("celebahq256")
    for seed, n_valid in ((0, 2), (1, 2)):
        data_scripts.make("celebahq256", tmp_path, mirror=str(folder), valid=n_valid, seed=seed, name=f"s{seed}")
    names = [contents(tmp_path, f"s{seed}")["valid"].names for seed in (0, 1)]
    for seed, found in enumerate(names):
        held_out = np.sort(np.random.RandomState(seed).permutation(5)[:2])
        assert found == [content["all"].names[i] for i in held_out]
    assert names[0] != names[1]
    for wrong in ({"valid": 5}, {"valid": -1}, {"seed": -1}):
        with pytest.raises(CfgError, match=r"--valid is|--seed is"):
            data_scripts.make("celebahq256", tmp_path, mirror=str(folder), **wrong)


@pytest.mark.parametrize(
    ("name", "split", "kept"),
    [
        ("cifar10", "test", [0, 10, 19]),
        ("imagenet32", "train", [0, 14, 29]),
        ("svhn", "test", [0, 6, 11]),
        ("imagenet32_oord", "train", [0, 10, 20]),
    ],
)
def test_a_limit_is_spread_over_all(
    name: str, split: str, kept: list[int], made: Callable[..., tuple[Path, Any]], tmp_path: Path
) -> None:
    folder, content = made(name)
    limited = data_scripts.make(name, tmp_path, mirror=str(folder), limit=3)
    assert limited == f"{name}_limit3"
    assert_equal({split: contents(tmp_path, limited)[split]}, {split: CASES[name].wanted(content)[split][kept]})


def test_either_camera_of_small_norb_alone(made: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    folder, content = made("small_norb")
    for first, camera in enumerate(("left", "right")):
        name = data_scripts.make("small_norb", tmp_path, mirror=str(folder), cameras=camera)
        assert name == f"small_norb_{camera}"
        wanted = {"train": content["training"][first::2], "test": content["testing"][first::2]}
        assert_equal(contents(tmp_path, name), wanted)


def test_large_faces_are_kept_as_png_unless_asked_otherwise(
    made: Callable[..., tuple[Path, Any]], tmp_path: Path
) -> None:
    folder, _ = made("celebahq1024")
    data_scripts.make("celebahq1024", tmp_path, mirror=str(folder))
    data_scripts.make("celebahq1024", tmp_path, mirror=str(folder), raw=True, name="raw")
    assert [Dump.open(tmp_path, name).layout.encoding for name in ("celebahq1024", "raw")] == ["png", "raw"]
    assert_equal(contents(tmp_path, "raw"), contents(tmp_path, "celebahq1024"))


# --- files that are not upstream's ------------------------------------------------------------------------------------


def test_another_edition_from_a_mirror_is_told(
    made: Callable[..., tuple[Path, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = made("mnist")
    data_scripts.make("mnist", tmp_path, mirror=str(folder))
    dump = Dump.open(tmp_path, "mnist")
    assert dump.provenance["other_files"] == list(mnist.FILES)
    assert "not upstream's files" in dump.identity
    assert capsys.readouterr().err.count("not upstream's file as far as that is known") == 4


def test_a_file_of_the_right_size_must_be_the_right_one(made: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    folder, _ = made("mnist")
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for path in folder.iterdir():
        data = path.read_bytes()
        (mirror / path.name).write_bytes(data.ljust(28_881, b"\0") if path.name == mnist.FILES[1] else data)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: md5 .*damaged, or another file"):
        data_scripts.make("mnist", tmp_path, mirror=str(mirror))
    assert not (tmp_path / "mnist").exists()


def test_upstream_itself_must_send_the_right_file(
    made: Callable[..., tuple[Path, Any]], tmp_path: Path, empty_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = made("mnist")
    empty_site.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(mnist, "UPSTREAM", (empty_site.url,))
    with pytest.raises(DataError, match=r"answers [\d,]+ bytes, but the file has 9,912,422"):
        data_scripts.make("mnist", tmp_path)


def test_labels_of_another_set_are_told(made: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    folder, _ = made("mnist")
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for path in folder.iterdir():
        other = path.name.replace("train-labels", "t10k-labels")
        (mirror / path.name).write_bytes((folder / other).read_bytes())
    with pytest.raises(DataError, match=r"labels \(14,\) for 30 images"):
        data_scripts.make("mnist", tmp_path, mirror=str(mirror))


def test_too_little_room_to_unpack_is_told(
    made: Callable[..., tuple[Path, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = made("imagenet32")
    monkeypatch.setattr(imagenet.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(DataError, match=r"[\d,]+ bytes are needed\. Make room"):
        data_scripts.make("imagenet32", tmp_path, mirror=str(folder))
    assert not [*(tmp_path / ".raw" / "imagenet32").iterdir()]


def test_a_disk_that_fills_while_a_zip_is_unpacked_is_no_damage(
    made: Callable[..., tuple[Path, Any]], tmp_path: Path
) -> None:
    folder, _ = made("imagenet32")
    with full_disk(4000), pytest.raises(DataError, match=r"cannot be written \(File too large\), where") as told:
        data_scripts.make("imagenet32", tmp_path, mirror=str(folder))
    assert "damaged" not in str(told.value)
    assert not [*(tmp_path / ".raw" / "imagenet32").iterdir()]


# --- files that a person must fetch -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MANUAL)
def test_what_a_person_fetched_is_found(name: str, made: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    dump = ALIASES.get(name, name)
    folder, _ = made(dump)
    data_scripts.make(name, tmp_path, mirror=str(folder))
    data_scripts.make(name, tmp_path / "other", source=str(folder))
    assert bytes_of(tmp_path, dump) == bytes_of(tmp_path / "other", dump)


@pytest.mark.parametrize("name", MANUAL)
@pytest.mark.parametrize("looked", [False, True])
def test_what_a_person_must_fetch_is_told(
    name: str, looked: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--source", str(tmp_path)] if looked else []
    with pytest.raises(SystemExit) as left:
        main(command, [name, "--dumps", str(tmp_path / "dumps"), *where])
    told = capsys.readouterr().err
    wanted = {
        "celeba64": ["img_align_celeba.zip, 1,443,490,838 bytes, md5 00d2c5bc6d35e252742224ab0c1e8fcb", "drive.google",
                     "list_eval_partition.txt, 2,836,386 bytes, md5 d32c9cbf5e040fd4025c592c306e6668"],
        "celebahq": ["data1024x1024.zip", "drive.google"],
        "ffhq": ["images1024x1024.zip, 95,781,155,300 bytes, md5 5fa9a55f3508a8c6cf6be53ebe7acfc7", "archive.org"],
        "imagenet32": ["train_32x32.tar, 4,113,018,880 bytes, sha256 244a323d48f8d72f65ad8b54658c01", "torrent bf62f5",
                       "valid_32x32.tar, 161,474,560 bytes, sha256 862e559462b24cf736212a19f6b0d47b"],
        "imagenet64": ["train_64x64.tar, 12,112,588,800 bytes, sha256 e2a2c1947a748d0d256e98e6d82800", "torrent 96816a",
                       "valid_64x64.tar, 477,255,680 bytes, sha256 eeac03ec4f585baf871d2b4cb9c974bf"],
    }  # fmt: skip
    (parts,) = (parts for prefix, parts in wanted.items() if name.startswith(prefix))
    assert left.value.code == 3
    assert [part for part in [*parts, "--source FOLDER"] if part not in told] == []
    assert not (tmp_path / "dumps" / ALIASES.get(name, name)).exists()
