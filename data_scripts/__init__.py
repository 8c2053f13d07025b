"""Download and preprocess datasets into dumps: ``python -m data_scripts <dataset>``, or ``data_scripts.make``."""

from data_scripts.recipes import make

__all__ = ["make"]
