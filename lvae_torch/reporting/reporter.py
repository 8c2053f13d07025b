"""Where numbers and pictures go."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from lvae_torch.errors import DataError


class Reporter(Protocol):
    """One place that keeps or shows what a run reports."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Named numbers after ``step`` steps."""

    def image(self, step: int, tag: str, grid: np.ndarray) -> None:
        """A picture, uint8 (H, W, 3)."""

    def histogram(self, step: int, tag: str, values: np.ndarray) -> None:
        """Many numbers of one kind, (n,)."""

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

    def histogram(self, step: int, tag: str, values: np.ndarray) -> None:
        for reporter in self.reporters:
            reporter.histogram(step, tag, values)

    def restart(self, reporters: Iterable[Reporter]) -> None:
        """Close what there is, and go on with others."""
        self.close()
        self.reporters = list(reporters)

    def close(self) -> None:
        """Close each, also when another one cannot be."""
        with ExitStack() as stack:
            for reporter in reversed(self.reporters):
                stack.callback(reporter.close)


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn a full disk, or a folder that cannot be written, into a DataError that names ``path``."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}). Free some space or choose another folder, and "
            "repeat the command; the checkpoints are intact."
        ) from error
