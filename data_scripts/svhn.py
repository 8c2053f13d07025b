"""SVHN: house numbers, cropped digits (format 2)."""

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from data_scripts.arrays import Chunk, Stream, write_arrays
from data_scripts.formats import MatArray, load_mat
from data_scripts.recipe import Recipe, Request
from data_scripts.upstream import Source
from lvae_torch.data.dump import Layout
from lvae_torch.errors import DataError

UPSTREAM = "http://ufldl.stanford.edu/housenumbers"
FILES = {
    "train": Source("train_32x32.mat", 182_040_794, md5="e26dedcc434d2e4c54c9b2d4a06d8373"),
    "test": Source("test_32x32.mat", 64_275_384, md5="eb5a983be6a315427106f1b164d9cef3"),
    "extra": Source("extra_32x32.mat", 1_329_278_602, md5="a93ce644f1a588dc4d68dda5feec44a7"),
}


def write(request: Request) -> str:
    """73,257 + 26,032 digits; with the 531,131 easier ones as a split of their own if asked for."""
    with_extra = request.options["extra"]
    splits = {s: _split(request.fetch(f, UPSTREAM)) for s, f in FILES.items() if with_extra or s != "extra"}
    provenance = {"source": UPSTREAM, "labels": "digit; 0, which the files call 10, is 0", "licence": "non-commercial"}
    return write_arrays(request, "svhn_extra" if with_extra else "svhn", Layout((3, 32, 32), 256), provenance, splits)


def _split(path: Path) -> Stream:
    images = MatArray(path, "X")
    (column,) = load_mat(path, "y")
    labels = column.flatten() % 10
    if images.shape != (32, 32, 3, len(labels)):
        raise DataError(f"{path}: X is {images.shape} and y has {len(labels):,}, needs (32, 32, 3, N) and N.")
    return Stream(lambda: len(labels), partial(_chunks, images, labels))


def _chunks(images: MatArray, labels: np.ndarray) -> Iterator[Chunk]:
    first = 0
    for items in images.items():  # (n, colour, column, row)
        yield items.transpose(0, 3, 2, 1), labels[first : first + len(items)]
        first += len(items)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--extra", action="store_true", help="the extra digits too: dump svhn_extra (1.3 GB more)")


RECIPE = Recipe(
    name="svhn",
    looks=dict.fromkeys(("svhn", "svhn_extra"), ((3, 32, 32), 256)),
    images="73,257 + 26,032",
    pixels="32x32 colour",
    download="246 MB",
    dump="305 MB",
    licence="non-commercial",
    write=write,
    add_own_options=add_options,
    variants={"svhn_extra": {"extra": True}},
)
