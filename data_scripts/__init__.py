"""Download and preprocess datasets into dumps: ``python -m data_scripts <dataset>``, or ``data_scripts.make``."""

from pathlib import Path
from typing import Any


def make(dataset: str, dumps: str | Path, **arguments: Any) -> str:
    """Make a dump; see ``data_scripts.recipes.make``."""
    from data_scripts import recipes  # here, for processes that only decode pictures import this package too

    return recipes.make(dataset, dumps, **arguments)


__all__ = ["make"]
