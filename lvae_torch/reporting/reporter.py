"""Where numbers and pictures go."""

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np


class Reporter(Protocol):
    """One place that keeps or shows what a run reports."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Named numbers after ``step`` steps."""

    def image(self, step: int, tag: str, grid: np.ndarray) -> None:
        """A picture, uint8 (H, W, 3)."""

    def close(self) -> None:
        """Nothing more will come."""


class Reporters:
    """Several reporters as one; none are fine too."""

    def __init__(self, reporters: Iterable[Reporter] = ()) -> None:
        self.reporters = list(reporters)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for reporter in self.reporters:
            reporter.scalars(step, values)

    def image(self, step: int, tag: str, grid: np.ndarray) -> None:
        for reporter in self.reporters:
            reporter.image(step, tag, grid)

    def close(self) -> None:
        for reporter in self.reporters:
            reporter.close()
