"""The exponential moving average of the weights, which evaluation and inference use."""

from copy import deepcopy

import torch
from torch import Tensor

from lvae_torch.models.contract import Model
from lvae_torch.training.flat import FlatParameters


class Ema:
    """A copy of ``model`` in evaluation mode, whose weights follow those of ``model`` as a moving average.

    Batch norm's running statistics are averaged too, so that they fit the averaged weights.
    """

    def __init__(self, model: Model, decay: float, is_aged: bool = False) -> None:
        """``is_aged``: the weights are an average already, or trained ones, which nothing shall forget at first."""
        self.model = deepcopy(model).eval()
        self.flat = FlatParameters(self.model, with_gradient=False)
        self.decay = decay
        self.is_aged = is_aged

    def decay_at(self, step: int) -> float:
        """Short at first, so that random initial weights are soon forgotten."""
        return self.decay if self.is_aged else min(self.decay, (1 + step) / (10 + step))

    def share_at(self, step: int) -> float:
        """How far the average moves towards the weights after ``step``."""
        return 1 - self.decay_at(step)

    @torch.no_grad()
    def update(self, flat: FlatParameters, share: Tensor, ok: Tensor | None = None) -> None:
        """Move by a scalar ``share`` of the way towards the weights; not at all where a scalar ``ok`` is false."""
        weight = share if ok is None else ok.to(share.dtype) * share
        self.flat.vector.lerp_(flat.vector, weight)
        for mine, its in zip(self.flat.buffers, flat.buffers, strict=True):
            if mine.is_floating_point():
                mine.lerp_(its, weight.to(mine.dtype))
            else:
                mine.copy_(its)
