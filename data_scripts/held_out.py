"""Which pictures of a set without official splits are held out, as options that several recipes have."""

import argparse
from collections.abc import Sequence

import numpy as np

from lvae_torch.errors import CfgError


def add_held_out_options(parser: argparse.ArgumentParser) -> None:
    """``--valid`` and ``--seed``."""
    parser.add_argument(
        "--valid", type=int, default=0, metavar="N", help="images held out at random (default: one in ten)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of that choice")


def random_split(names: Sequence[str], n_valid: int, seed: int) -> dict[str, list[str]]:
    """Training and validation names, each in their old order.

    Raises:
        CfgError: if nothing would be left to train on.
    """
    n = len(names)
    n_valid = n_valid or max(1, n // 10)
    if not 0 < n_valid < n:
        raise CfgError(f"--valid is {n_valid}; there are {n:,} pictures, and some must be left to train on.")
    if not 0 <= seed < 2**32:
        raise CfgError(f"--seed is {seed}; use 0 to {2**32 - 1}, as NumPy's RandomState needs.")
    order = np.random.RandomState(seed).permutation(n)
    valid, train = np.sort(order[:n_valid]), np.sort(order[n_valid:])
    return {"train": [names[i] for i in train], "valid": [names[i] for i in valid]}
