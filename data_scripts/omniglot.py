"""OMNIGLOT: the 28x28 file that IWAE, the LVAE paper and VampPrior use, and the original drawings of 105x105."""

import argparse
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from data_scripts.archives import open_archive, pictures_of
from data_scripts.arrays import of_array, padded, permutation, write_arrays
from data_scripts.formats import load_mat
from data_scripts.mnist import add_pad_option
from data_scripts.pictures import PictureDump, add_picture_options
from data_scripts.recipe import Recipe, Request
from data_scripts.render import Render
from data_scripts.upstream import Source
from lvae_torch.data.dump import Layout
from lvae_torch.errors import DataError

UPSTREAM = "https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT"
CHARDATA = Source("chardata.mat", git_blob="016a3536ffe5e1d38e42563a18d7a78bfaf643ec")
N_VALID, VALID_SEED = 1345, 123  # of IWAE

FULL_UPSTREAM = "https://github.com/brendenlake/omniglot/raw/master/python"


def _zip(name: str, size: int, md5: str) -> Source:
    return Source(name, size, md5=md5, unpacked="*_??.png")


ZIPS = {
    "background": _zip("images_background.zip", 9_464_212, md5="68d2efa1b9178cc56df9314c21c6e718"),
    "evaluation": _zip("images_evaluation.zip", 6_462_886, md5="6b91aef0f799c5bb55b94e3f2daec811"),
    "small1": _zip("images_background_small1.zip", 1_319_022, md5="e704a628b5459e08445c13499850abc4"),
    "small2": _zip("images_background_small2.zip", 1_580_917, md5="b75a71a51d3b13f821f212756fe481fd"),
}


def write(request: Request) -> str:
    """24,345 + 8,070 images of 28x28; with IWAE's 1,345 validation images apart if asked for."""
    path = request.fetch(CHARDATA, UPSTREAM)
    (images, labels), (test, test_labels) = _part(path, "data", "target"), _part(path, "testdata", "testtarget")
    side, keep_valid = request.options["pad"], request.options["keep_valid"]
    images, test = padded(images, side), padded(test, side)
    splits = {"train": of_array(images, labels), "test": of_array(test, test_labels)}
    if keep_valid:
        order = permutation(len(images), VALID_SEED)
        train, valid = (of_array(images, labels, part) for part in np.split(order, [-N_VALID]))
        splits = {"train": train, "valid": valid, "test": splits["test"]}
    variant = "omniglot" + ("_valid" if keep_valid else "") + (f"_pad{side}" if side != 28 else "")
    iwae = f"data permuted with seed {VALID_SEED}, last {N_VALID:,} valid; testdata"
    provenance = {
        "source": f"{UPSTREAM}/{CHARDATA.name}",
        "preprocessing": f"columns are images, column-major; times 255, rounded; zeros around, to {side}x{side}",
        "labels": "alphabet",
        "splits": iwae if keep_valid else "data, testdata",
    }
    return write_arrays(request, variant, Layout((1, side, side), 256), provenance, splits)


def _part(path: Path, data: str, target: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (n, 28, 28, 1), and the number of each one's alphabet."""
    columns, onehot = load_mat(path, data, target)
    is_right = columns.ndim == onehot.ndim == 2 and (len(columns), columns.shape[1]) == (28 * 28, onehot.shape[1])
    if not is_right or not 0 <= columns.min() <= columns.max() <= 1:
        raise DataError(
            f"{path}: {data} is {columns.shape} and {target} {onehot.shape}, needs (784, n) from 0 to 1 and (50, n)."
        )
    return upright(columns), onehot.argmax(axis=0)


def upright(columns: np.ndarray) -> np.ndarray:
    """(784, n) in [0, 1], each column an image in column-major order -> uint8 (n, 28, 28, 1)."""
    pixels = (columns * 255).round().astype(np.uint8)
    return pixels.T.reshape(-1, 28, 28).transpose(0, 2, 1)[..., None]


def add_options(parser: argparse.ArgumentParser) -> None:
    add_pad_option(parser)
    parser.add_argument(
        "--keep-valid",
        action="store_true",
        help=f"keep IWAE's {N_VALID:,} validation images apart: dump omniglot_valid",
    )


def write_full(request: Request) -> str:
    """Background characters for training, evaluation characters for testing; ink is 1."""
    small = request.options["small"]
    files = {"train": "small1", "test": "small2"} if small else {"train": "background", "test": "evaluation"}
    with ExitStack() as stack:
        archives = {
            split: stack.enter_context(open_archive(request.fetch(ZIPS[file], FULL_UPSTREAM)))
            for split, file in files.items()
        }
        dump = PictureDump(
            request,
            "omniglot_full" + ("_small" if small else ""),
            Layout((1, 105, 105), 2),
            {"source": FULL_UPSTREAM, "splits": {s: ZIPS[f].name for s, f in files.items()}, "pixels": "ink is 1"},
            Render((105, 105), channels=1, needs=(105, 105), ink=True),
        )
        return dump.write({split: (archive, pictures_of(archive)) for split, archive in archives.items()})


def add_full_options(parser: argparse.ArgumentParser) -> None:
    add_picture_options(parser)
    parser.add_argument(
        "--small", action="store_true", help="the two small background sets (2,720 to train, 3,120 to test) instead"
    )


RECIPE = Recipe(
    name="omniglot",
    looks={
        "omniglot": ((1, 28, 28), 256),
        "omniglot_valid": ((1, 28, 28), 256),
        "omniglot_pad32": ((1, 32, 32), 256),
    },
    images="24,345 + 8,070",
    pixels="28x28 grey",
    download="about 6 MB",
    dump="25 MB",
    licence="MIT",
    write=write,
    add_own_options=add_options,
    variants={"omniglot_valid": {"keep_valid": True}, "omniglot_pad32": {"pad": 32}},
)
FULL = Recipe(
    name="omniglot_full",
    looks=dict.fromkeys(("omniglot_full", "omniglot_full_small"), ((1, 105, 105), 2)),
    images="19,280 + 13,180",
    pixels="105x105 binary",
    download="16 MB",
    dump="360 MB",
    licence="MIT",
    write=write_full,
    add_own_options=add_full_options,
    variants={"omniglot_full_small": {"small": True}},
)
