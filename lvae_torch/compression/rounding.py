"""The robust mode: parameters on a coarse grid, so that their last digits do not matter.

Networks give other last digits with another number of threads, batch size or processor, since sums run in another
order. In float64 the difference is some 1e-15 of a value; rounded to multiples of 2^-16, one value in about 1e10 lies
so near to the border between two multiples that it can be rounded both ways. Latents are then integers times rounded
numbers, so no difference lives on from one layer to the next.
"""

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
STEP = 2.0**-16  # of means, logits and logarithms of scales: costs about its square in nats
PROBABILITY_STEP = 2.0**-24  # as fine as the coder's


@dataclass(frozen=True)
class Rounding:
    """Rounds, if it is on."""

    is_on: bool

    def __call__(self, distribution: T) -> T:
        """A distribution whose tensors of floats are rounded."""
        if not self.is_on:
            return distribution
        assert is_dataclass(distribution) and not isinstance(distribution, type), type(distribution)
        values = {field.name: getattr(distribution, field.name) for field in fields(distribution)}
        rounded = {name: self.tensor(value) for name, value in values.items() if _is_float(value)}
        return replace(distribution, **rounded)

    def tensor(self, values: Tensor, step: float = STEP) -> Tensor:
        return torch.round(values / step) * step if self.is_on else values

    def probability(self, p: Tensor) -> Tensor:
        return self.tensor(p, PROBABILITY_STEP)


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
