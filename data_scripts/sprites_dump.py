"""What multi-dSprites and multi-MNIST share: scenes of sprites, split 90 to 10, as a dump."""

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np

from data_scripts.multi_object import CANVAS, PATCH, draw_scenes, rendered_in_parts
from data_scripts.progress import progress
from data_scripts.recipe import Request
from lvae_torch.errors import CfgError

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
        request.writer(variant, (sprites.shape[-1], canvas, canvas), n_levels=2, provenance=details) as writer,
        progress(writer.dataset, sum(map(len, splits.values())), "images") as advance,
    ):
        for split, part in splits.items():
            for images in rendered_in_parts(part, sprites, canvas):
                writer.add(split, images)
                advance(len(images))
    return writer.dataset


def add_sprite_options(parser: argparse.ArgumentParser) -> None:
    """``--count``, ``--seed``, ``--objects`` and ``--canvas``."""
    parser.add_argument("--count", type=int, default=100_000, help="images in all (default and published: 100,000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generator")
    parser.add_argument("--objects", choices=list(OBJECTS), default="012", help="how many objects an image shows")
    parser.add_argument("--canvas", type=int, default=CANVAS, help=f"height and width of an image (default {CANVAS})")
