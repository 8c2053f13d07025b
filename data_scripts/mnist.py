"""MNIST in grey, for dynamic binarization, and Fashion-MNIST, which comes in the same form."""

import argparse
import hashlib
from collections.abc import Sequence
from functools import partial

import numpy as np

from data_scripts.arrays import Stream, of_array, padded, permutation, write_arrays
from data_scripts.formats import read_idx
from data_scripts.recipe import Recipe, Request
from data_scripts.upstream import Source
from lvae_torch.data.dump import Layout

UPSTREAM = ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist")
FASHION_UPSTREAM = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
)
FILES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz",
         "t10k-labels-idx1-ubyte.gz")  # fmt: skip
UNPACKED_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def _unpacked_names(name: str) -> tuple[str, ...]:
    """As torchvision leaves the file, and as some copies write it."""
    plain = name.removesuffix(".gz")
    return plain, plain.replace("-idx", ".idx"), f"{plain}.idx"


DIGITS = tuple(
    Source(name, size, md5=md5, also=_unpacked_names(name), members=UNPACKED_MD5)
    for name, size, md5 in zip(
        FILES,
        (9_912_422, 28_881, 1_648_877, 4_542),
        ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432", "9fb629c4189551a2d022fa330f9573f3",
         "ec29112dd5afa0611ce80d1b7f02629c"),
        strict=True,
    )
)  # fmt: skip
CLOTHES = tuple(
    Source(name, size, md5=md5, also=_unpacked_names(name))
    for name, size, md5 in zip(
        FILES,
        (26_421_880, 29_515, 4_422_102, 5_148),
        ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe", "bef4ecab320f06d8554ea6380940ec79",
         "bb300cfdad3c16e7a12a480ee83cd310"),
        strict=True,
    )
)  # fmt: skip
CLASS_COUNTS = {
    "mnist": {
        60_000: [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        10_000: [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    },
    "fashion_mnist": {60_000: [6000] * 10, 10_000: [1000] * 10},
}
FIRST_DIGITS = {
    "23ceaef5eb61f0e70d64ac18fdf0f60df3d5971cf30bbadac7b6ebf07f782d2c",
    "8f6a418c9a639f9e14e96feca47a97df2a35a0a68ae2875431c5c80e05536941",
}
"""sha256 of the first image of MNIST's training and test files: the two sets' files have the same names."""
HALVING_SEED = 101  # of Efficient-VDVAE, which halves the test set into validation and test


def write_digits(request: Request) -> str:
    """60,000 + 10,000; or, as Efficient-VDVAE has them, on 32x32 pixels with the test set halved."""
    if request.options["splits"] == "efficient_vdvae":
        return _write(request, DIGITS, UPSTREAM, "mnist_efficient_vdvae", side=32, halved=True)
    return _write(request, DIGITS, UPSTREAM, "mnist")


def _write(
    request: Request,
    sources: Sequence[Source],
    upstream: Sequence[str],
    name: str,
    side: int | None = None,
    halved: bool = False,
) -> str:
    side_asked = side or request.options["pad"]
    variant = name if side or side_asked == 28 else f"{name}_pad{side_asked}"
    images, labels, test_images, test_labels = (read_idx(request.fetch(source, *upstream)) for source in sources)
    set_name = "fashion_mnist" if sources is CLOTHES else "mnist"
    for part, classes, source in ((images, labels, sources[0]), (test_images, test_labels, sources[2])):
        _check_set(request, set_name, part, classes, source)
    images, test_images = (padded(array[..., None], side_asked) for array in (images, test_images))
    provenance = {
        "source": upstream[0],
        "preprocessing": f"zeros around, to {side_asked}x{side_asked}" if side_asked != 28 else "none",
        "splits": f"train; the test file permuted with seed {HALVING_SEED}: first half valid, last half test"
        if halved
        else "train and test files as they are",
    }
    test = halved_test(test_images, test_labels) if halved else {"test": of_array(test_images, test_labels)}
    splits = {"train": of_array(images, labels), **test}
    return write_arrays(request, variant, Layout((1, side_asked, side_asked), 256), provenance, splits)


def _check_set(request: Request, name: str, images: np.ndarray, labels: np.ndarray, source: Source) -> None:
    """Tell MNIST and Fashion-MNIST apart, by what is in their files."""
    where, wanted = request.files[source.name].path, CLASS_COUNTS[name].get(len(labels))
    counts = np.bincount(labels, minlength=10).tolist()
    is_mnist = hashlib.sha256(images[:1].tobytes()).hexdigest() in FIRST_DIGITS
    if is_mnist and name != "mnist":
        request.refuse(f"{where}: holds MNIST's digits, not {name}.")
    elif wanted is not None and counts != wanted:
        request.refuse(f"{where}: its classes have {counts} images, those of {name} {wanted}: another set.")


def halved_test(images: np.ndarray, labels: np.ndarray) -> dict[str, Stream]:
    """Efficient-VDVAE's validation and test images of a test set."""
    order = permutation(len(images), HALVING_SEED)
    half = len(images) // 2
    return {"valid": of_array(images, labels, order[:half]), "test": of_array(images, labels, order[half:])}


def add_pad_option(parser: argparse.ArgumentParser) -> None:
    """``--pad``."""
    parser.add_argument("--pad", type=int, choices=(28, 32), default=28, help="height and width, with zeros around")


def add_options(parser: argparse.ArgumentParser) -> None:
    add_pad_option(parser)
    parser.add_argument(
        "--splits",
        choices=("plain", "efficient_vdvae"),
        default="plain",
        help="plain: 60,000 + 10,000; efficient_vdvae: 32x32, test set halved into valid and test",
    )


RECIPE = Recipe(
    name="mnist",
    looks={
        "mnist": ((1, 28, 28), 256),
        "mnist_pad32": ((1, 32, 32), 256),
        "mnist_efficient_vdvae": ((1, 32, 32), 256),
    },
    images="60,000 + 10,000",
    pixels="28x28 grey",
    download="12 MB",
    dump="55 MB",
    licence="CC BY-SA 3.0",
    write=write_digits,
    add_own_options=add_options,
    variants={"mnist_pad32": {"pad": 32}, "mnist_efficient_vdvae": {"splits": "efficient_vdvae"}},
)
FASHION = Recipe(
    name="fashion_mnist",
    looks={"fashion_mnist": ((1, 28, 28), 256)},
    images="60,000 + 10,000",
    pixels="28x28 grey",
    download="31 MB",
    dump="55 MB",
    licence="MIT",
    write=partial(_write, sources=CLOTHES, upstream=FASHION_UPSTREAM, name="fashion_mnist"),
    add_own_options=add_pad_option,
)
