"""The datasets: one line each."""

from data_scripts import binarized_mnist, multi_dsprites, multi_mnist
from data_scripts.recipe import Recipe

RECIPES: dict[str, Recipe] = {
    "binarized_mnist": binarized_mnist.RECIPE,
    "multi_dsprites": multi_dsprites.RECIPE,
    "multi_mnist": multi_mnist.RECIPE,
}
