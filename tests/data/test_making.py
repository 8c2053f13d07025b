"""Datasets made with the command: binarized MNIST, multi-objects, options, exit statuses."""

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sites import Site
from test_fetching import sha256

import data_scripts
from data_scripts import binarized_mnist, mnist, multi_mnist
from data_scripts.commands import command
from data_scripts.formats import read_idx
from data_scripts.recipes import RECIPES, VARIANTS
from data_scripts.upstream import Source
from lvae_torch.cli import main
from lvae_torch.data.dump import Dump
from lvae_torch.errors import CfgError, DataError

# --- binarized MNIST --------------------------------------------------------------------------------------------------

N_LINES = {"train": 50, "valid": 10, "test": 20}


def amat(images: np.ndarray) -> bytes:
    """Upstream's text, written another way than the parser reads it."""
    return "".join(" ".join(map(str, image.flatten().tolist())) + "\n" for image in images).encode()


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Small files in upstream's place, by split: (n, 28, 28, 1)."""
    rng = np.random.default_rng(0)
    images = {split: rng.integers(0, 2, (n, 28, 28, 1), dtype=np.uint8) for split, n in N_LINES.items()}
    texts = {split: amat(array) for split, array in images.items()}
    monkeypatch.setattr(binarized_mnist, "FILES", {s: (len(text), sha256(text)) for s, text in texts.items()})
    return images


def lay_out(folder: Path, images: dict[str, np.ndarray], gzipped: bool) -> Path:
    folder.mkdir()
    for split, array in images.items():
        name, text = f"binarized_mnist_{split}.amat", amat(array)
        (folder / (name + ".gz" * gzipped)).write_bytes(gzip.compress(text) if gzipped else text)
    return folder


def all_images(dumps: Path, name: str) -> dict[str, np.ndarray]:
    dump = Dump.open(dumps, name)
    dump.verify()
    return {split: dump.split(split).gather(np.arange(count)).numpy() for split, count in dump.counts.items()}


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("over_http", [False, True])
def test_binarized_mnist(
    tmp_path: Path, empty_site: Site, digits: dict[str, np.ndarray], gzipped: bool, over_http: bool
) -> None:
    folder = lay_out(tmp_path / "mirror", digits, gzipped)
    empty_site.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    empty_site.cuts = [1000]
    mirror = empty_site.url if over_http else str(folder)
    command(["binarized_mnist", "--dumps", str(tmp_path / "dumps"), "--mirror", mirror])
    images = all_images(tmp_path / "dumps", "binarized_mnist")
    assert list(images) == ["train", "test"]
    assert np.array_equal(images["train"], np.concatenate([digits["train"], digits["valid"]]))
    assert np.array_equal(images["test"], digits["test"])
    dump = Dump.open(tmp_path / "dumps", "binarized_mnist")
    assert (dump.image_shape, dump.n_levels) == ((1, 28, 28), 2)
    assert "sorted by digit" in dump.provenance["note"]
    assert not (tmp_path / "dumps" / ".raw" / "binarized_mnist").exists()
    assert len(list(folder.iterdir())) == 3


def test_the_validation_images_can_be_kept_apart(tmp_path: Path, digits: dict[str, np.ndarray]) -> None:
    folder = lay_out(tmp_path / "mirror", digits, gzipped=False)
    assert (
        data_scripts.make("binarized_mnist", tmp_path, mirror=str(folder), keep_valid=True) == "binarized_mnist_valid"
    )
    images = all_images(tmp_path, "binarized_mnist_valid")
    assert list(images) == ["train", "valid", "test"]
    assert all(np.array_equal(images[split], digits[split]) for split in digits)


def test_a_limit_spreads_and_tells(tmp_path: Path, digits: dict[str, np.ndarray]) -> None:
    """The test file is sorted by digit, so its first images would be a biased sample."""
    folder = lay_out(tmp_path / "mirror", digits, gzipped=False)
    assert data_scripts.make("binarized_mnist", tmp_path, mirror=str(folder), limit=3) == "binarized_mnist_limit3"
    images = all_images(tmp_path, "binarized_mnist_limit3")
    assert np.array_equal(images["test"], digits["test"][[0, 10, 19]])
    assert images["train"].shape == (3, 28, 28, 1)
    assert "3 images" in Dump.open(tmp_path, "binarized_mnist_limit3").provenance["limit"]


def test_downloads_stay_if_asked(tmp_path: Path, empty_site: Site, digits: dict[str, np.ndarray]) -> None:
    folder = lay_out(tmp_path / "mirror", digits, gzipped=False)
    empty_site.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    for _ in range(2):
        data_scripts.make("binarized_mnist", tmp_path, mirror=empty_site.url, keep_raw=True)
    assert len(empty_site.asked) == 3


def test_one_wrong_digit_is_found(tmp_path: Path, digits: dict[str, np.ndarray]) -> None:
    changed = {split: array.copy() for split, array in digits.items()}
    changed["test"][-1, -1, -1] ^= 1
    folder = lay_out(tmp_path / "mirror", changed, gzipped=True)
    with pytest.raises(DataError, match=r"binarized_mnist_test\.amat\.gz: sha256"):
        data_scripts.make("binarized_mnist", tmp_path, mirror=str(folder))
    assert not (tmp_path / "binarized_mnist").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text.replace(b"1", b"2", 1),
        lambda text: text.replace(b" ", b"\t", 1),
        lambda text: text.replace(b"\n", b" ", 1),
        lambda text: text[:-1] + b"\r",
        lambda text: b" " + text[:-1],
    ],
)
def test_text_of_another_form_is_refused(change: Callable[[bytes], bytes]) -> None:
    text = amat(np.ones((2, 28, 28, 1), dtype=np.uint8))
    assert binarized_mnist.parse(text, Path("a.amat")).all()
    with pytest.raises(DataError, match=r"a\.amat: "):
        binarized_mnist.parse(change(text), Path("a.amat"))


# --- multi-dSprites and multi-MNIST -----------------------------------------------------------------------------------


def test_multi_dsprites_needs_nothing(tmp_path: Path) -> None:
    command(["multi_dsprites", "--dumps", str(tmp_path), "--count", "50", "--seed", "3"])
    dump = Dump.open(tmp_path, "multi_dsprites")
    assert dump.counts == {"train": 45, "test": 5}
    assert (dump.image_shape, dump.n_levels) == ((3, 64, 64), 2)
    assert (dump.provenance["count"], dump.provenance["seed"]) == (50, 3)


def test_the_seed_decides_and_nothing_else(tmp_path: Path) -> None:
    hashes = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert data_scripts.make("multi_dsprites", tmp_path, count=20, seed=seed, name=name) == name
        hashes.append(Dump.open(tmp_path, name).content_hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_one_object_on_a_small_canvas(tmp_path: Path) -> None:
    command(["multi_dsprites", "--dumps", str(tmp_path), "--count", "40", "--objects", "1", "--canvas", "28"])
    images = all_images(tmp_path, "multi_dsprites_1_28px")  # the variant is in the name
    assert {split: array.shape for split, array in images.items()} == {"train": (36, 28, 28, 3), "test": (4, 28, 28, 3)}
    together = np.concatenate(list(images.values()))
    assert (together.max(axis=3).sum(axis=(1, 2)) >= 26).all()  # the smallest sprite has 26 pixels
    colours = [np.unique(image[image.any(axis=-1)], axis=0) for image in together]
    assert all(len(found) == 1 for found in colours)


def idx(images: np.ndarray) -> bytes:
    return gzip.compress(np.array([2051, *images.shape], dtype=">i4").tobytes() + images.tobytes(), mtime=0)


@pytest.fixture
def grey_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with 30 bright squares as MNIST's training images."""
    images = np.zeros((30, 28, 28), dtype=np.uint8)
    images[:, 6:22, 6:22] = 255
    data = idx(images)
    monkeypatch.setattr(multi_mnist, "DIGITS", [Source(mnist.FILES[0], len(data), sha256(data))])
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / mnist.FILES[0]).write_bytes(data)
    return folder


def test_multi_mnist(tmp_path: Path, grey_digits: Path) -> None:
    command(["multi_mnist", "--dumps", str(tmp_path), "--mirror", str(grey_digits), "--count", "60"])
    images = all_images(tmp_path, "multi_mnist")
    assert {split: array.shape for split, array in images.items()} == {"train": (54, 64, 64, 1), "test": (6, 64, 64, 1)}
    ink = np.concatenate(list(images.values())).sum(axis=(1, 2, 3))
    square = ink[ink > 0].min()
    assert 9**2 <= square <= 11**2  # 16 of 28 pixels become about 10 of 18
    assert np.bincount(np.minimum(-(-ink // square), 2)).tolist()[0] == 20  # a third of the images is empty


@pytest.mark.parametrize(
    "damaged", [b"", b"junk", idx(np.zeros((2, 28, 28), np.uint8))[:-9], gzip.compress(b"x" * 99, mtime=0)]
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "a.gz").write_bytes(damaged)
    with pytest.raises(DataError, match=r"a\.gz: "):
        read_idx(tmp_path / "a.gz")


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ([], 2, "name a dataset"),
        (["mnits"], 2, "Did you mean 'mnist'?"),
        (["multi_dsprites", "--count", "9"], 2, "--count is 9"),
        (["multi_dsprites", "--count", "many"], 2, "--count"),
        (["binarized_mnist", "--mirror", "."], 3, "binarized_mnist_train.amat: no such file"),
        (["--verify", "few"], 3, "no dump of that name"),
    ],
)
def test_the_exit_status_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, told: str
) -> None:
    with pytest.raises(SystemExit) as left:
        main(command, ["--dumps", str(tmp_path), *arguments])
    assert (left.value.code, told in capsys.readouterr().err) == (status, True)


def test_it_runs_as_a_module(tmp_path: Path, repository: Path) -> None:
    arguments = [sys.executable, "-W", "error", "-m", "data_scripts", "multi_dsprites"]
    arguments += ["--count", "10", "--dumps", str(tmp_path)]
    result = subprocess.run(arguments, cwd=repository, capture_output=True, text=True, timeout=120)
    assert (result.returncode, "train 9, test 1" in result.stdout) == (0, True), result.stderr


def test_the_list_has_every_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    command(["--list"])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["dataset", "images", "pixels", "download", "dump", "licence", "access"]
    assert [line.split()[0] for line in lines[: len(RECIPES)]] == list(RECIPES)
    variants = " ".join(lines[len(RECIPES) :])
    assert all(f"{name}" in variants for name in VARIANTS)


def test_verify_finds_a_flipped_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_scripts.make("multi_dsprites", tmp_path, count=10, name="few")
    command(["--verify", "few", "--dumps", str(tmp_path)])
    assert "every byte" in capsys.readouterr().out
    path = tmp_path / "few" / "test_00000.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    with pytest.raises(DataError, match=r"test_00000\.npy"):
        command(["--verify", "few", "--dumps", str(tmp_path)])


def test_the_folder_may_stand_before_the_dataset(tmp_path: Path) -> None:
    command(["--dumps", str(tmp_path), "multi_dsprites", "--count", "10"])
    assert (tmp_path / "multi_dsprites").is_dir()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"cuont": 5}, "no option cuont; there are name, replace, limit, "),
        ({"count": 9}, "--count is 9"),
        ({"limit": -1}, "--limit is -1"),
        ({"seed": -1}, "--seed is -1"),
        ({"name": "../up"}, r"the dataset is '\.\./up'"),
    ],
)
def test_wrong_options_are_told(tmp_path: Path, options: dict[str, object], told: str) -> None:
    with pytest.raises(CfgError, match=told):
        data_scripts.make("multi_dsprites", tmp_path, **options)


def test_an_unknown_dataset_is_told(tmp_path: Path) -> None:
    with pytest.raises(CfgError, match="no dataset 'mnits'; there are binarized_mnist"):
        data_scripts.make("mnits", tmp_path)


def test_two_at_once_make_it_once(tmp_path: Path) -> None:
    from lvae_torch.data.sharing import locked

    with (
        locked(tmp_path / ".raw" / "multi_dsprites.lock", "it", wait=False),
        pytest.raises(DataError, match="another process is making multi_dsprites"),
    ):
        data_scripts.make("multi_dsprites", tmp_path, count=10)
    data_scripts.make("multi_dsprites", tmp_path, count=10)


# --- the real files ---------------------------------------------------------------------------------------------------


def test_the_real_binarized_mnist(tmp_path: Path, shared: Path) -> None:
    """Fractions of ink and the order of digits as measured on upstream's files."""
    folder = shared / "data" / "raw" / "binarized_mnist"
    if not folder.is_dir():
        pytest.skip("needs the files of binarized MNIST")
    data_scripts.make("binarized_mnist", tmp_path, mirror=str(folder))
    images = all_images(tmp_path, "binarized_mnist")
    assert {split: len(array) for split, array in images.items()} == {"train": 60_000, "test": 10_000}
    parts = (images["train"][:50_000], images["train"][50_000:], images["test"])
    assert np.allclose([part.mean() for part in parts], [0.130562, 0.131127, 0.132512], atol=5e-7)
    mean = images["train"].mean(axis=0).clip(1e-3, 1 - 1e-3)
    nll = -(images["test"] * np.log(mean) + (1 - images["test"]) * np.log1p(-mean)).sum(axis=(1, 2, 3)).mean()
    assert nll == pytest.approx(205.944, abs=1e-3)  # the independent-pixel model, with its means kept off 0 and 1
