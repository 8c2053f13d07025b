"""Copies arrays under neutral names into the tensors of a model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lvae_torch.errors import DataError


@torch.no_grad()
def copy_weights(targets: Mapping[str, Tensor], weights: Mapping[str, Any]) -> None:
    """Copy into each target the array or tensor of the same name.

    Raises:
        DataError: listing every weight that is missing, left over, or of another shape.
    """
    problems = [f"{name}: missing" for name in targets if name not in weights]
    problems += [f"{name}: this model has no such weight" for name in weights if name not in targets]
    values = {name: _tensor(weights[name]) for name in targets if name in weights}
    problems += [
        f"{name}: has shape {tuple(value.shape)}, needs {tuple(targets[name].shape)}"
        for name, value in values.items()
        if value.shape != targets[name].shape
    ]
    if problems:
        raise DataError("the weights do not fit the config:\n  " + "\n  ".join(problems))
    for name, value in values.items():
        targets[name].copy_(value)


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
