"""The interface of reporters, which receive numbers and pictures."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from lvae_torch.errors import DataError


class Reporter(Protocol):
    """Stores or shows the numbers and pictures of a run."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Report named numbers after ``step`` steps."""

    def image(self, step: int, tag: str, grid: np.ndarray) -> None:
        """Report a picture, uint8 (H, W, 3)."""

    def histogram(self, step: int, tag: str, values: np.ndarray) -> None:
        """Report the distribution of many values, (n,)."""

    def close(self) -> None:
        """Finish; no report follows."""


class Reporters:
    """Passes reports to any number of reporters, even none."""

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
        """Close every reporter, even if closing another one fails."""
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
