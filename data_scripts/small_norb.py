"""Small NORB: grey photographs of toys by two cameras, as 96x96 or shrunk to 32x32 pixels."""

import argparse
from collections.abc import Iterator
from functools import partial

import numpy as np

from data_scripts.arrays import Chunk, Stream, write_arrays
from data_scripts.formats import NorbArray
from data_scripts.recipe import Recipe, Request
from data_scripts.upstream import Source
from lvae_torch.data.dump import Layout
from lvae_torch.errors import DataError

UPSTREAM = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small"
CAMERAS = {"both": slice(0, 2), "left": slice(0, 1), "right": slice(1, 2)}
SIDE = 96

TRAIN, TEST = "smallnorb-5x46789x9x18x6x2x96x96-training", "smallnorb-5x01235x9x18x6x2x96x96-testing"


def _source(name: str, size: int, sha256: str) -> Source:
    return Source(f"{name}.gz", size, sha256, also=(name,))


FILES = {
    "train": (
        _source(f"{TRAIN}-dat.mat", 131_896_188, "5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873"),
        _source(f"{TRAIN}-cat.mat", 348, "2784e542c1922060691090952b6cd6278879a216c90f81476f0f00256d42cdaa"),
    ),
    "test": (
        _source(f"{TEST}-dat.mat", 130_799_817, "cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474"),
        _source(f"{TEST}-cat.mat", 347, "ecaf6d5bb8c3bc5eab9cf0258f6d2198dd474e016e374836fc097f2e5ff509ff"),
    ),
}


def write(request: Request) -> str:
    """24,300 pairs each to train and to test; the two pictures of a pair stand side by side in the order."""
    side, cameras = request.options["size"], request.options["cameras"]
    splits = {split: _split(request, *sources, side, cameras) for split, sources in FILES.items()}
    variant = "small_norb" + (str(side) if side != SIDE else "") + (f"_{cameras}" if cameras != "both" else "")
    provenance = {
        "source": UPSTREAM,
        "cameras": cameras,
        "preprocessing": f"Pillow bicubic, anti-aliased, to {side}x{side}" if side != SIDE else "none",
        "labels": "animal, human, plane, truck, car",
        "splits": "training and testing files",
        "licence": "for research only",
    }
    return write_arrays(request, variant, Layout((1, side, side), 256), provenance, splits)


def _split(request: Request, pictures: Source, categories: Source, side: int, cameras: str) -> Stream:
    images = NorbArray(request.fetch(pictures, UPSTREAM))
    labels = np.concatenate(list(NorbArray(request.fetch(categories, UPSTREAM)).rows()))
    if images.dtype != np.uint8 or images.shape[1:] != (2, SIDE, SIDE) or labels.shape != images.shape[:1]:
        raise DataError(f"{images.path}: holds {images.dtype} {images.shape}, needs uint8 pairs of {SIDE}x{SIDE}.")
    if labels.min() < 0 or labels.max() > 4:
        request.refuse(f"{images.path}: has categories up to {labels.max()}, small NORB 0 to 4: another set.")
    which = CAMERAS[cameras]
    per_pair = which.stop - which.start
    return Stream(lambda: images.shape[0] * per_pair, partial(_chunks, images, labels, which, side))


def _chunks(images: NorbArray, labels: np.ndarray, which: slice, side: int) -> Iterator[Chunk]:
    first = 0
    for pairs in images.rows():
        some = pairs[:, which]  # (n, cameras, 96, 96)
        yield (
            shrunk(some.reshape(-1, SIDE, SIDE), side)[..., None],
            labels[first : first + len(some)].repeat(some.shape[1]),
        )
        first += len(some)


def shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 (n, H, W) -> (n, side, side), by Pillow's anti-aliased bicubic filter."""
    from PIL import Image

    if images.shape[1] == side:
        return images
    return np.stack([np.asarray(Image.fromarray(im).resize((side, side), Image.Resampling.BICUBIC)) for im in images])


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=int, choices=(32, SIDE), default=SIDE, help="height and width")
    parser.add_argument("--cameras", choices=list(CAMERAS), default="both", help="which of a pair's pictures to keep")


RECIPE = Recipe(
    name="small_norb",
    looks={"small_norb": ((1, 96, 96), 256), "small_norb32": ((1, 32, 32), 256)},
    images="48,600 + 48,600",
    pixels="96x96 grey",
    download="263 MB",
    dump="896 MB",
    licence="research only",
    write=write,
    add_own_options=add_options,
    variants={"small_norb32": {"size": 32}},
)
