"""The datasets: one line each."""

from pathlib import Path
from typing import Any

from data_scripts import (
    binarized_mnist,
    celeba64,
    cifar10,
    deepul,
    faces,
    imagenet,
    images,
    mnist,
    multi_dsprites,
    multi_mnist,
    omniglot,
    small_norb,
    svhn,
    toy2d,
)
from data_scripts.recipe import Recipe, Request
from lvae_torch.errors import CfgError
from lvae_torch.files import place_of

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        binarized_mnist.RECIPE,
        mnist.RECIPE,
        mnist.FASHION,
        omniglot.RECIPE,
        omniglot.FULL,
        small_norb.RECIPE,
        svhn.RECIPE,
        cifar10.RECIPE,
        celeba64.RECIPE,
        *faces.RECIPES,
        *imagenet.RECIPES,
        multi_dsprites.RECIPE,
        multi_mnist.RECIPE,
        toy2d.RECIPE,
        deepul.RECIPE,
        images.RECIPE,
    )
}

VARIANTS: dict[str, tuple[Recipe, dict[str, Any]]] = {
    name: (recipe, dict(options)) for recipe in RECIPES.values() for name, options in recipe.variants.items()
}
"""Other names that may be asked for: the recipe, and the options that a name stands for."""


def catalogue() -> str:
    """What is known of every dump without it: the text of ``lvae_torch/data/catalogue.json``."""
    looks = {name: look for recipe in RECIPES.values() for name, look in recipe.looks.items()}
    lines = (f'  "{name}": [{list(shape)}, {levels}]' for name, (shape, levels) in looks.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def make(
    dataset: str,
    dumps: str | Path,
    mirror: str | None = None,
    source: str | None = None,
    keep_raw: bool = False,
    **options: Any,
) -> str:
    """Make the dump of ``dataset``, or of a variant of one, in the folder ``dumps``; returns its name.

    Args:
        mirror: URL or folder to take the source files from, instead of upstream.
        source: file or folder with files that a person has fetched.
        keep_raw: keep downloads when the dump is whole.
        options: ``name``, ``limit`` and the recipe's own, as on the command line.
    Raises:
        CfgError: if there is no such dataset or option.
        DataError: naming the file that is missing, damaged or not what it should be, and what to do.
    """
    if dataset in RECIPES:
        recipe, preset = RECIPES[dataset], dict[str, Any]()
    elif dataset in VARIANTS:
        recipe, preset = VARIANTS[dataset]
    else:
        raise CfgError(f"there is no dataset {dataset!r}; there are {', '.join([*RECIPES, *VARIANTS])}.")
    request = Request(place_of(dumps, "--dumps"), mirror, source, {**preset, **options}, keep_raw)
    return recipe.make(request)
