"""Images of a dump's split as levels."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from lvae_torch.compression.chain import LevelSource
from lvae_torch.data.images import Images

Tell = Callable[[int], object]
"""Told how many images were read."""


class ToldOf:
    """A source that tells how many of its images were taken in the chain's order, the last ones first.

    What else is looked at, such as images to calibrate on, is not told of; a group may be taken again, smaller.
    """

    def __init__(self, source: LevelSource, tell: Tell) -> None:
        self._source, self._tell = source, tell
        self._first = self._end = len(source)  # of the group taken last

    def __len__(self) -> int:
        return len(self._source)

    def levels(self, first: int, n: int) -> np.ndarray:
        levels = self._source.levels(first, n)
        if first + n == self._first:
            self._end = self._first
        if first + n == self._end:
            self._first = first
            self._tell(len(self) - first)
        return levels


def counted(groups: Iterator[np.ndarray], tell: Tell) -> Iterator[np.ndarray]:
    """Groups of images, telling after each how many there were."""
    n = 0
    for levels in groups:
        yield levels
        tell(n := n + len(levels))


@dataclass(frozen=True)
class SplitLevels:
    """A ``chain.LevelSource`` of what a model sees of a split: after ``[data] binarize`` and ``n_bits``."""

    images: Images

    def __len__(self) -> int:
        return len(self.images.indices)

    @property
    def n_levels(self) -> int:
        return self.images.preprocess.levels_after

    def levels(self, first: int, n: int) -> np.ndarray:
        """Of images first .. first + n - 1, integers (n, C, H, W)."""
        x = self.images.at(self.images.indices[first : first + n], torch.device("cpu"))
        result: np.ndarray = torch.round(x * (self.n_levels - 1)).long().numpy()
        return result
