"""What multi-dSprites and multi-MNIST share: scenes of sprites, split 90 to 10, as a dump."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from data_scripts.arrays import Chunk, Stream, write_arrays
from data_scripts.formats import NpyInZip
from data_scripts.multi_object import CANVAS, PATCH, draw_scenes, rendered_in_parts
from data_scripts.progress import progress
from data_scripts.recipe import Request
from data_scripts.upstream import Source
from lvae_torch.data.dump import Layout
from lvae_torch.errors import CfgError, DataError

UPSTREAM = "https://github.com/addtt/multi-object-datasets/raw/master/generated"

OBJECTS: dict[str, tuple[str, dict[int, float]]] = {
    "012": ("", {0: 1 / 3, 1: 1 / 3, 2: 1 / 3}),
    "1": ("_1", {1: 1.0}),
}
"""Published choices of how many objects an image shows: ending of the dump's name, and shares."""


def write_sprites(variant: str, sprites: np.ndarray, request: Request, provenance: Mapping[str, Any]) -> str:
    """Draw, render and write the dump ``variant``; returns its name.

    Args:
        sprites: uint8 0/1, (n, 18, 18, C).
    """
    n, seed, canvas = (request.options[key] for key in ("count", "seed", "canvas"))
    objects = request.options["objects"]
    if objects not in OBJECTS:
        raise CfgError(f"--objects is {objects!r}; use {' or '.join(OBJECTS)}.")
    ending, shares = OBJECTS[objects]
    variant += ending + (f"_{canvas}px" if canvas != CANVAS else "")
    if n < 10:
        raise CfgError(f"--count is {n}; ten images are the least that can be split 90 to 10.")
    if not 0 <= seed < 2**32:
        raise CfgError(f"--seed is {seed}; use 0 to {2**32 - 1}, as NumPy's RandomState needs.")
    if canvas < PATCH:
        raise CfgError(f"--canvas is {canvas}; a sprite alone takes {PATCH} pixels.")
    scenes = draw_scenes(n, len(sprites), shares, overlap=True, rng=np.random.RandomState(seed), canvas=canvas)
    n_train = n * 9 // 10
    details = {
        "recipe": "addtt/multi-object-datasets: overlap allowed, added and clipped",
        "shares of images by number of objects": {str(k): share for k, share in shares.items()},
        "count": n,
        "seed": seed,
        "splits": "first 90 % train, last 10 % test",
        **provenance,
    }
    splits = {"train": scenes[:n_train], "test": scenes[n_train:]}
    splits = {split: [part[i] for i in request.chosen(len(part))] for split, part in splits.items()}
    with (
        request.writer(variant, Layout((sprites.shape[-1], canvas, canvas), 2), details) as writer,
        progress(writer.dataset, sum(map(len, splits.values())), "images") as advance,
    ):
        for split, part in splits.items():
            for images in rendered_in_parts(part, sprites, canvas):
                writer.add(split, images)
                advance(len(images))
    return writer.dataset


def write_published(variant: str, channels: int, source: Source, folder: str, request: Request) -> str:
    """addtt's own file, first 90 % to train, as ladder-vae-pytorch reads it; its labels, a pickle, stay unread."""
    path = request.fetch(source, f"{UPSTREAM}/{folder}")
    images = NpyInZip(path, "x")
    total = images.shape[0]
    if images.dtype != np.uint8 or images.shape != (total, CANVAS, CANVAS, channels):
        raise DataError(
            f"{path}: holds {images.dtype} {images.shape}, needs uint8 (N, {CANVAS}, {CANVAS}, {channels})."
        )
    n_train = total * 9 // 10
    splits = {"train": _rows(images, 0, n_train), "test": _rows(images, n_train, total)}
    provenance = {"source": UPSTREAM, "splits": "first 90 % train, last 10 % test", "preprocessing": "255 to 1"}
    return write_arrays(request, variant, Layout((channels, CANVAS, CANVAS), 2), provenance, splits)


def _rows(images: NpyInZip, begin: int, end: int) -> Stream:
    def chunks() -> Iterator[Chunk]:
        first = 0
        for rows in images.rows():
            here = rows[max(0, begin - first) : max(0, end - first)]
            first += len(rows)
            if len(here):
                yield (here > 127).astype(np.uint8), None

    return Stream(lambda: end - begin, chunks)


def add_sprite_options(parser: argparse.ArgumentParser) -> None:
    """``--count``, ``--seed``, ``--objects``, ``--canvas`` and ``--published``."""
    parser.add_argument("--published", action="store_true", help="addtt's own file instead of drawing anew")
    parser.add_argument("--count", type=int, default=100_000, help="images in all (default and published: 100,000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generator")
    parser.add_argument("--objects", choices=list(OBJECTS), default="012", help="how many objects an image shows")
    parser.add_argument("--canvas", type=int, default=CANVAS, help=f"height and width of an image (default {CANVAS})")
