"""The datasets: one line each."""

from pathlib import Path
from typing import Any

from data_scripts import binarized_mnist, multi_dsprites, multi_mnist
from data_scripts.recipe import Recipe, Request
from lvae_torch.errors import CfgError

RECIPES: dict[str, Recipe] = {
    "binarized_mnist": binarized_mnist.RECIPE,
    "multi_dsprites": multi_dsprites.RECIPE,
    "multi_mnist": multi_mnist.RECIPE,
}


def make(dataset: str, dumps: Path, mirror: str | None = None, keep_raw: bool = False, **options: Any) -> str:
    """Make the dump of ``dataset`` in the folder ``dumps``; returns its name.

    Args:
        mirror: URL or folder to take the source files from, instead of upstream.
        keep_raw: keep downloads when the dump is whole.
        options: ``name``, ``limit`` and the recipe's own, as on the command line.
    Raises:
        CfgError: if there is no such dataset or option.
        DataError: naming the file that is missing, damaged or not what it should be, and what to do.
    """
    if dataset not in RECIPES:
        raise CfgError(f"there is no dataset {dataset!r}; there are {', '.join(RECIPES)}.")
    return RECIPES[dataset].make(Request(dumps, mirror, options, keep_raw))
