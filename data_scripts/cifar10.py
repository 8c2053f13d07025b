"""CIFAR-10, with the splits of those who publish on it."""

import argparse
from pathlib import Path

import numpy as np

from data_scripts.archives import Archive, open_archive
from data_scripts.arrays import Stream, of_array, permutation, write_arrays
from data_scripts.formats import read_pickle
from data_scripts.mnist import HALVING_SEED, halved_test
from data_scripts.recipe import Recipe, Request
from data_scripts.upstream import Source
from lvae_torch.data.dump import Layout
from lvae_torch.errors import DataError

UPSTREAM = "https://www.cs.toronto.edu/~kriz"
ARCHIVE = Source(
    "cifar-10-python.tar.gz", 170_498_071, md5="c58f30108f718f92721af3b95e74349a", unpacked="data_batch_1",
    members={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
)  # fmt: skip
CLASS_COUNTS = {50_000: [5000] * 10, 10_000: [1000] * 10}
TRAINING = [f"data_batch_{k}" for k in range(1, 6)]
VDVAE_SEED = 11172018

SPLITS = {
    "plain": "train 50,000, test 10,000",
    "efficient_vdvae": f"test permuted with seed {HALVING_SEED} and halved: valid 5,000, test 5,000",
    "vdvae": f"training images permuted with seed {VDVAE_SEED}: first 5,000 valid, others train",
}


def write(request: Request) -> str:
    """50,000 + 10,000 images."""
    path, kind = request.fetch(ARCHIVE, UPSTREAM), request.options["splits"]
    with open_archive(path) as archive:
        names = [name for name in TRAINING if _has(archive, name)]
        if names and len(names) < len(TRAINING):
            request.refuse(f"{path}: has {len(names)} of the {len(TRAINING)} training batches.")
        training = [_batch(archive, name) for name in names or TRAINING]
        test = _batch(archive, "test_batch")
    images, labels = (np.concatenate(arrays) for arrays in zip(*training, strict=True))
    for classes in (labels, test[1]):
        wanted, counts = CLASS_COUNTS.get(len(classes)), np.bincount(classes, minlength=10).tolist()
        if wanted is not None and counts != wanted:
            request.refuse(f"{path}: its classes have {counts} images, CIFAR-10's {wanted}: another set.")
    provenance = {"source": UPSTREAM, "splits": SPLITS[kind], "preprocessing": "none", "labels": "class"}
    variant = "cifar10" if kind == "plain" else f"cifar10_{kind}"
    return write_arrays(request, variant, Layout((3, 32, 32), 256), provenance, _splits(kind, images, labels, *test))


def _splits(
    kind: str, images: np.ndarray, labels: np.ndarray, test_images: np.ndarray, test_labels: np.ndarray
) -> dict[str, Stream]:
    if kind == "efficient_vdvae":
        return {"train": of_array(images, labels), **halved_test(test_images, test_labels)}
    test = of_array(test_images, test_labels)
    if kind == "vdvae":
        # scikit-learn's train_test_split: the first of the permutation are held out.
        valid, train = np.split(permutation(len(images), VDVAE_SEED), [len(images) // 10])
        return {"train": of_array(images, labels, train), "valid": of_array(images, labels, valid), "test": test}
    return {"train": of_array(images, labels), "test": test}


def _has(archive: Archive, name: str) -> bool:
    return any(Path(member).name == name for member in archive.names)


def _batch(archive: Archive, name: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (n, 32, 32, 3) and labels of one file."""
    members = [member for member in archive.names if Path(member).name == name]
    if len(members) != 1:
        raise DataError(f"{archive.path}: has {len(members)} files {name}, needs one.")
    batch, where = read_pickle(archive.read(members[0]), archive.path / name), archive.path / name
    data, labels = batch.get("data"), np.asarray(batch.get("labels"))
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (len(data), 3 * 32 * 32):
        raise DataError(f"{where}: its data is not uint8 (n, 3072).")
    if labels.shape != (len(data),):
        raise DataError(f"{where}: has {labels.size:,} labels for {len(data):,} images.")
    return planes(data, 32), labels


def planes(rows: np.ndarray, side: int) -> np.ndarray:
    """Rows of a red, a green and a blue plane, (n, 3 side^2) -> (n, side, side, 3)."""
    return rows.reshape(-1, 3, side, side).transpose(0, 2, 3, 1)


def add_options(parser: argparse.ArgumentParser) -> None:
    told = "; ".join(f"{name}: {what}" for name, what in SPLITS.items())
    parser.add_argument("--splits", choices=list(SPLITS), default="plain", help=told)


RECIPE = Recipe(
    name="cifar10",
    looks=dict.fromkeys(("cifar10", "cifar10_efficient_vdvae", "cifar10_vdvae"), ((3, 32, 32), 256)),
    images="50,000 + 10,000",
    pixels="32x32 colour",
    download="170 MB",
    dump="184 MB",
    licence="none stated",
    write=write,
    add_own_options=add_options,
    variants={"cifar10_efficient_vdvae": {"splits": "efficient_vdvae"}, "cifar10_vdvae": {"splits": "vdvae"}},
)
