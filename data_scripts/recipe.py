"""What a dataset recipe is: one file here, one line in the table of ``data_scripts.recipes``."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Request:
    """What a recipe is asked to make."""

    dumps: Path
    mirror: str | None = None
    """URL or folder to take the source files from, instead of upstream."""
    options: dict[str, object] = field(default_factory=dict)
    """Values of the recipe's own options."""

    @property
    def raw(self) -> Path:
        """Where downloads are kept."""
        return self.dumps / ".raw"

    def bases(self, *upstream: str) -> tuple[str, ...]:
        return (self.mirror,) if self.mirror else upstream


@dataclass(frozen=True)
class Recipe:
    """How to make one dataset."""

    summary: str
    """One line for ``--list``: items, size, where it comes from."""
    make: Callable[[Request], str]
    """Makes the dump; returns its name."""
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None
