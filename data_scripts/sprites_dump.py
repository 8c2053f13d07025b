"""What multi-dSprites and multi-MNIST share: scenes of 0, 1 or 2 sprites, split 90 to 10, as a dump."""

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np

from data_scripts.multi_object import CANVAS, draw_scenes, rendered_in_parts
from data_scripts.progress import progress
from data_scripts.recipe import Request
from lvae_torch.errors import CfgError

THIRDS = {0: 1 / 3, 1: 1 / 3, 2: 1 / 3}


def write_sprites(variant: str, sprites: np.ndarray, request: Request, provenance: Mapping[str, Any]) -> str:
    """Draw, render and write the dump ``variant``; returns its name.

    Args:
        sprites: uint8 0/1, (n, 18, 18, C).
    """
    n, seed = request.options["count"], request.options["seed"]
    if n < 10:
        raise CfgError(f"--count is {n}; ten images are the least that can be split 90 to 10.")
    if not 0 <= seed < 2**32:
        raise CfgError(f"--seed is {seed}; use 0 to {2**32 - 1}, as NumPy's RandomState needs.")
    scenes = draw_scenes(n, len(sprites), THIRDS, overlap=True, rng=np.random.RandomState(seed))
    n_train = n * 9 // 10
    details = {
        "recipe": "addtt/multi-object-datasets: 0, 1 or 2 sprites in equal shares, overlap allowed, added and clipped",
        "count": n,
        "seed": seed,
        "splits": "first 90 % train, last 10 % test",
        **provenance,
    }
    splits = {"train": scenes[:n_train], "test": scenes[n_train:]}
    splits = {split: [part[i] for i in request.chosen(len(part))] for split, part in splits.items()}
    with (
        request.writer(variant, (sprites.shape[-1], CANVAS, CANVAS), n_levels=2, provenance=details) as writer,
        progress(writer.dataset, sum(map(len, splits.values())), "images") as advance,
    ):
        for split, part in splits.items():
            for images in rendered_in_parts(part, sprites):
                writer.add(split, images)
                advance(len(images))
    return writer.dataset


def add_sprite_options(parser: argparse.ArgumentParser) -> None:
    """``--count`` and ``--seed``."""
    parser.add_argument("--count", type=int, default=100_000, help="images in all (default and published: 100,000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generator")
