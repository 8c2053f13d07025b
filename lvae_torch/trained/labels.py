"""The labels that people give to a class-conditional run."""

from collections.abc import Iterable, Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from lvae_torch.data.classes import class_numbers

Labels = int | str | Sequence[int | str] | Tensor | np.ndarray
"""Of a class-conditional model: the class of each image, by number or name, or one for all."""


def checked_labels(labels: Labels | None, n: int, name: str, classes: Sequence[str]) -> Tensor | None:
    """The classes of ``n`` images of the run ``name``, int64 (n,); None for an unconditional model.

    Raises:
        TypeError: if they are no labels.
        ValueError: if the model needs labels and has none, or they are not one known class for each image.
    """
    if not classes:
        if labels is not None:
            raise ValueError(f"{name} is not class-conditional; leave labels out.")
        return None
    if labels is None:
        raise ValueError(f"{name} is conditional on {len(classes)} classes; give labels, one an image.")
    given = labels.tolist() if isinstance(labels, Tensor | np.ndarray) else labels
    if not isinstance(given, Integral | str | Iterable):
        raise TypeError(f"labels are {given!r}; give the number or the name of a class, or one for each image.")
    wanted = [given] * n if isinstance(given, Integral | str) else list(given)
    if len(wanted) != n:
        raise ValueError(f"{len(wanted)} labels for {n} images of {name}; give one for each, or one for all.")
    try:
        return torch.tensor(class_numbers(wanted, classes))
    except ValueError as error:
        raise ValueError(f"{name} has {error}.") from error
