"""What multi-dSprites and multi-MNIST share: scenes of 0, 1 or 2 sprites, split 90 to 10, as a dump."""

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from data_scripts.multi_object import CANVAS, draw_scenes, rendered_in_parts
from data_scripts.recipe import Request
from lvae_torch.data.writing import DumpWriter
from lvae_torch.errors import CfgError

COUNT = 100_000
THIRDS = {0: 1 / 3, 1: 1 / 3, 2: 1 / 3}


def write_sprites(dataset: str, sprites: np.ndarray, request: Request, provenance: Mapping[str, Any]) -> str:
    """Draw, render and write the dump ``dataset``; returns its name."""
    n, seed = int(str(request.options.get("count", COUNT))), int(str(request.options.get("seed", 0)))
    name = str(request.options.get("name") or dataset)
    if n < 10:
        raise CfgError(f"--count is {n}; ten images are the least that can be split 90 to 10.")
    scenes = draw_scenes(n, len(sprites), THIRDS, overlap=True, rng=np.random.RandomState(seed))
    n_train = n * 9 // 10
    details = {
        "recipe": "addtt/multi-object-datasets: 0, 1 or 2 sprites in equal shares, overlap allowed, added and clipped",
        "count": n,
        "seed": seed,
        "splits": "first 90 % train, last 10 % test",
        **provenance,
    }
    shape = (sprites.shape[-1], CANVAS, CANVAS)
    with (
        DumpWriter(request.dumps, name, shape, n_levels=2, provenance=details) as writer,
        tqdm(total=n, desc=name, unit="images", mininterval=2.0) as bar,
    ):
        for split, part in (("train", scenes[:n_train]), ("test", scenes[n_train:])):
            for images in rendered_in_parts(part, sprites, done=bar.update):
                writer.add(split, images)
    return name


def add_sprite_options(parser: argparse.ArgumentParser) -> None:
    """``--count``, ``--seed`` and ``--name``."""
    parser.add_argument("--count", type=int, default=COUNT, help=f"images in all (published: {COUNT:,})")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generator")
    parser.add_argument("--name", help="name of the dump, if it is not the published variant")
