"""Static binarized MNIST: Larochelle's fixed binarization (Salakhutdinov and Murray 2008), three text files."""

import argparse
from pathlib import Path

import numpy as np

from data_scripts.arrays import of_array, write_arrays
from data_scripts.recipe import Recipe, Request
from data_scripts.upstream import Source, opened
from lvae_torch.data.dump import Layout
from lvae_torch.errors import DataError

UPSTREAM = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"
PIXELS = 28 * 28

# Of the unpacked text; upstream serves it unpacked, mirrors may hold it gzipped.
FILES = {
    "train": (78_400_000, "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d"),
    "valid": (15_680_000, "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2"),
    "test": (15_680_000, "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c"),
}


def write(request: Request) -> str:
    """60,000 training images (the train and valid files) and 10,000 test images; or, kept apart, 50,000 and 10,000."""
    keep_valid = request.options["keep_valid"]
    provenance = {
        "source": UPSTREAM,
        "preprocessing": "text to 0/1; order of the files kept",
        "splits": "train, valid, test files as they are" if keep_valid else "train = train + valid files, test",
        "note": "the test file is sorted by digit: its first images are all zeros",
    }
    splits = {file: [file] for file in FILES} if keep_valid else {"train": ["train", "valid"], "test": ["test"]}
    variant = "binarized_mnist_valid" if keep_valid else "binarized_mnist"
    streams = {s: of_array(np.concatenate([_images(f, request) for f in files])) for s, files in splits.items()}
    return write_arrays(request, variant, Layout((1, 28, 28), 2), provenance, streams)


def _images(file: str, request: Request) -> np.ndarray:
    source = Source(f"binarized_mnist_{file}.amat", *FILES[file], gzip_too=True)
    path = request.fetch(source, UPSTREAM, exact=True)
    with opened(path, source) as text:
        return parse(text.read(), path)


def parse(text: bytes, path: Path) -> np.ndarray:
    """Lines of 784 digits 0 or 1 between single spaces -> uint8 (n, 28, 28, 1).

    Raises:
        DataError: if the text has another form.
    """
    cells = np.frombuffer(text, dtype=np.uint8)
    if len(cells) % (2 * PIXELS):
        raise DataError(f"{path}: {len(cells):,} bytes are no whole number of lines of {2 * PIXELS}.")
    digits, gaps = cells[::2] - ord("0"), cells[1::2].reshape(-1, PIXELS)
    if digits.max(initial=0) > 1 or (gaps[:, :-1] != ord(" ")).any() or (gaps[:, -1] != ord("\n")).any():
        raise DataError(f"{path}: holds something other than lines of {PIXELS} digits 0 or 1 with spaces between.")
    return digits.reshape(-1, 28, 28, 1)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep-valid",
        action="store_true",
        help="keep the 10,000 validation images apart: dump binarized_mnist_valid (50,000 / 10,000 / 10,000)",
    )


RECIPE = Recipe(
    name="binarized_mnist",
    looks=dict.fromkeys(("binarized_mnist", "binarized_mnist_valid"), ((1, 28, 28), 2)),
    images="60,000 + 10,000",
    pixels="28x28 binary",
    download="110 MB",
    dump="55 MB",
    licence="none stated; from MNIST",
    write=write,
    add_own_options=add_options,
    variants={"binarized_mnist_valid": {"keep_valid": True}},
)
