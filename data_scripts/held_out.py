"""Which pictures of a set without official splits are held out, as options that several recipes have."""

import argparse
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from lvae_torch.errors import CfgError

Share = str | int | None
"""How many are held out: a number, "10%", or None for one in ten."""


def add_held_out_options(parser: argparse.ArgumentParser) -> None:
    """``--valid`` and ``--seed``."""
    parser.add_argument(
        "--valid", metavar="N|X%", help="images held out at random: a number, a share, or 0 for none (default: 10%%)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of that choice")


def random_split(
    names: Sequence[str], valid: Share, seed: int, groups: Sequence[str] | None = None
) -> dict[str, list[str]]:
    """Training and validation names, each in their old order.

    Args:
        groups: of each name; a group is held out as a whole or not at all.
    Raises:
        CfgError: if nothing would be left to train on.
    """
    n, n_valid = len(names), number_held_out(valid, len(names))
    if n_valid == 0:
        return {"train": list(names)}
    if not 0 < n_valid < n:
        raise CfgError(f"--valid is {valid or n_valid}; there are {n:,} pictures, and some must be left to train on.")
    if not 0 <= seed < 2**32:
        raise CfgError(f"--seed is {seed}; use 0 to {2**32 - 1}, as NumPy's RandomState needs.")
    held = _held_out(n, n_valid, seed) if groups is None else _groups_held_out(groups, n_valid, seed)
    return {
        "train": [name for name, out in zip(names, held, strict=True) if not out],
        "valid": [name for name, out in zip(names, held, strict=True) if out],
    }


def number_held_out(valid: Share, n: int) -> int:
    """How many of ``n`` pictures ``--valid`` means.

    Raises:
        CfgError: if it is neither a number nor a share.
    """
    match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)\s*%", "10%" if valid is None else str(valid).strip())
    if not match:
        raise CfgError(f"--valid is {valid}; use a number of pictures, a share such as 10%, or 0 for none.")
    if match[1]:
        return int(match[1])
    share = float(match[2]) / 100
    return max(1, int(n * share + 1e-9)) if share else 0


def _held_out(n: int, n_valid: int, seed: int) -> np.ndarray:
    held = np.zeros(n, dtype=bool)
    held[np.random.RandomState(seed).permutation(n)[:n_valid]] = True
    return held


def _groups_held_out(groups: Sequence[str], n_valid: int, seed: int) -> np.ndarray:
    """Whole groups in random order, until they have ``n_valid`` pictures."""
    names, of_each, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    order = np.random.RandomState(seed).permutation(len(names))
    n_groups = int(np.searchsorted(np.cumsum(sizes[order]), n_valid)) + 1
    if n_groups >= len(names):
        raise CfgError(
            f"{len(names):,} groups of {len(groups):,} pictures: with {n_valid:,} held out in whole groups, none is "
            "left to train on. Hold out fewer (--valid), or use another --group-by."
        )
    return np.isin(of_each, order[:n_groups])


def groups_of(names: Sequence[str], by: str) -> list[str]:
    """The group of each name: its folder, or what a regular expression finds in it (its first group, if it has one).

    Raises:
        CfgError: for an expression that is none, or that a name does not match.
    """
    if by == "folder":
        return [str(PurePosixPath(name).parent) for name in names]
    try:
        pattern = re.compile(by)
    except re.error as error:
        raise CfgError(f"--group-by is {by!r}, neither folder nor a regular expression ({error}).") from error
    found = [pattern.search(name) for name in names]
    if None in found:
        lost = names[found.index(None)]
        raise CfgError(f"--group-by {by!r}: {found.count(None):,} names do not match, the first {lost}.")
    return [match[1 if pattern.groups else 0] or "" for match in found if match]
