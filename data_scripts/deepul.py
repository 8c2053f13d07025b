"""The image data of the Berkeley course CS294-158 (rll/deepul): an archive of pickles."""

import argparse
from pathlib import Path

import numpy as np

from data_scripts.archives import open_archive
from data_scripts.arrays import of_array, write_arrays
from data_scripts.formats import read_pickle
from data_scripts.recipe import Recipe, Request
from data_scripts.upstream import Source
from lvae_torch.data.dump import Layout
from lvae_torch.errors import DataError

UPSTREAM = "https://henrhoi.s3.us-east-2.amazonaws.com"
ARCHIVE = Source("data.zip")
SETS = ("cifar10", "svhn", "mnist")


def write(request: Request) -> str:
    """The course's CIFAR-10, SVHN or MNIST."""
    which = request.options["which"]
    path = request.fetch(ARCHIVE, UPSTREAM)
    with open_archive(path) as archive:
        members = [name for name in archive.names if Path(name).name == f"{which}.pkl"]
        if len(members) != 1:
            raise DataError(f"{path}: has {len(members)} files {which}.pkl, needs one.")
        values, where = read_pickle(archive.read(members[0]), path / members[0]), path / members[0]
    splits = {}
    for split in ("train", "test"):
        images, labels = values.get(split), values.get(f"{split}_labels")
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
            raise DataError(f"{where}: its {split} is no uint8 array (N, H, W, C).")
        splits[split] = of_array(images, np.asarray(labels) if labels is not None else None)
        _, height, width, channels = images.shape
    provenance = {"source": UPSTREAM, "note": "the course thresholds MNIST: [data] binarize = threshold"}
    return write_arrays(request, f"deepul_{which}", Layout((channels, height, width), 256), provenance, splits)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--which", choices=SETS, default="cifar10", help="which of the archive's sets")


RECIPE = Recipe(
    name="deepul",
    looks={
        "deepul_cifar10": ((3, 32, 32), 256),
        "deepul_svhn": ((3, 32, 32), 256),
        "deepul_mnist": ((1, 28, 28), 256),
    },
    images="about 50,000 + 10,000",
    pixels="32x32 colour or 28x28 grey",
    download="231 MB",
    dump="up to 300 MB",
    licence="those of the sets",
    write=write,
    add_own_options=add_options,
    variants={f"deepul_{which}": {"which": which} for which in SETS},
)
