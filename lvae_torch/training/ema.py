"""The exponential moving average of the weights, which evaluation and inference use."""

from copy import deepcopy

import torch

from lvae_torch.models.contract import Model
from lvae_torch.training.flat import FlatParameters


class Ema:
    """A copy of ``model`` in evaluation mode, whose weights follow those of ``model`` as a moving average.

    Batch norm's running statistics are averaged too, so that they fit the averaged weights.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.model = deepcopy(model).eval()
        self.flat = FlatParameters(self.model, with_gradient=False)
        self.decay = decay

    def decay_at(self, step: int) -> float:
        """The decay after ``step``; small at first, so that the random initial weights soon lose their influence."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, flat: FlatParameters, step: int) -> None:
        """Move towards the weights after ``step``."""
        weight = 1 - self.decay_at(step)
        self.flat.vector.lerp_(flat.vector, weight)
        for mine, its in zip(self.flat.buffers, flat.buffers, strict=True):
            if mine.is_floating_point():
                mine.lerp_(its, weight)
            else:
                mine.copy_(its)
