"""Exponential moving average of the weights: the model that is evaluated and used."""

from copy import deepcopy

import torch

from lvae_torch.models.contract import Model
from lvae_torch.training.flat import FlatParameters


class Ema:
    """A copy of ``model`` in evaluation mode whose weights trail it.

    Batch norm's running statistics are averaged like weights: those of one step belong to that step's weights.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.model = deepcopy(model).eval()
        self.flat = FlatParameters(self.model, with_gradient=False)
        self.decay = decay

    def decay_at(self, step: int) -> float:
        """Short at first, so that the random initial weights are soon forgotten."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, flat: FlatParameters, step: int) -> None:
        """Move a little towards the weights after ``step``."""
        weight = 1 - self.decay_at(step)
        self.flat.vector.lerp_(flat.vector, weight)
        for mine, its in zip(self.flat.buffers, flat.buffers, strict=True):
            if mine.is_floating_point():
                mine.lerp_(its, weight)
            else:
                mine.copy_(its)
