"""Four sets of points in the plane, drawn here: two correlated Gaussians (a) and two uncorrelated ones (b)."""

import argparse

import numpy as np

from data_scripts.arrays import of_array, write_arrays
from data_scripts.recipe import Recipe, Request
from lvae_torch.data.dump import Layout

MEANS = {"1": (1.0, 2.0), "2": (-1.0, 2.0)}
STDS = {"1": (5.0, 1.0), "2": (1.0, 5.0)}
SETS = ("1a", "1b", "2a", "2b")
N_TRAIN, N_TEST = 10_000, 2_500
PUBLISHED_SEED, OWN_SEED = 0, 1


def write(request: Request) -> str:
    """10,000 points to train, the 2,500 of the published test, and 2,500 that are truly held out."""
    which = request.options["set"]
    sizes = {"train": (N_TRAIN, PUBLISHED_SEED), "test": (N_TEST, PUBLISHED_SEED), "heldout": (N_TEST, OWN_SEED)}
    splits = {split: of_array(points(which, *size)[:, None, None, :]) for split, size in sizes.items()}
    provenance = {
        "source": "henrhoi/vae-pytorch, rll/deepul: homework 3, question 1",
        "mean": MEANS[which[0]],
        "standard deviations": STDS[which[0]],
        "rotation": "an eighth of a turn" if which[1] == "a" else "none",
        "splits": f"train and test as published, both from seed {PUBLISHED_SEED}; heldout from seed {OWN_SEED}",
        "note": "the published test points are the first training points",
    }
    return write_arrays(request, f"toy2d_{which}", Layout((2, 1, 1), 0, dtype="float32"), provenance, splits)


def points(which: str, n: int, seed: int) -> np.ndarray:
    """float32 (n, 2) of the set ``which``."""
    noise = np.random.RandomState(seed).randn(n, 2) * STDS[which[0]]
    if which[1] == "a":
        noise = noise @ (np.array([[1.0, 1.0], [-1.0, 1.0]]) * np.sqrt(0.5))
    return (noise + MEANS[which[0]]).astype(np.float32)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", choices=SETS, default="1a", help="which of the four")


RECIPE = Recipe(
    name="toy2d",
    looks={f"toy2d_{which}": ((2, 1, 1), 0) for which in SETS},
    images="10,000 + 2,500 + 2,500",
    pixels="of 2 numbers (points)",
    download="none",
    dump="0.1 MB",
    licence="made here",
    write=write,
    add_own_options=add_options,
    variants={f"toy2d_{which}": {"set": which} for which in SETS},
)
