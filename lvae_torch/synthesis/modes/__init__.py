"""The table of inference modes: one line each, and one file of the same name."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Mode:
    """The inputs that a mode needs."""

    reads_images: bool
    of_training: bool = False
    """Whether it reads the training split by default, instead of the validation split."""
    draws_codes: bool = False
    """Whether it uses ``[synthesis] prior_run``."""
    is_of_one_process: bool = False
    """Whether its work cannot be divided among processes."""
    at_once: tuple[str, ...] = ("batch_size",)
    """The keys of ``[synthesis]`` that say how many images one pass takes, the first of them before all."""


MODES: dict[str, Mode] = {
    "reconstruction": Mode(reads_images=True),
    "generation": Mode(reads_images=False, draws_codes=True),
    "encoding": Mode(reads_images=True),
    "decoding": Mode(reads_images=False),
    "likelihood": Mode(reads_images=True, at_once=("batch_size", "chunk")),
    "analysis": Mode(reads_images=True),
    "interpolation": Mode(reads_images=True),
    "layer_inspection": Mode(reads_images=False, at_once=("columns",)),
    "div_stats": Mode(reads_images=True, of_training=True),
    "progressive": Mode(reads_images=True),
    "compression": Mode(reads_images=True, is_of_one_process=True),
    "sample_quality": Mode(reads_images=True, of_training=True, draws_codes=True),
}


def runner(mode: str) -> Callable[..., dict[str, object]]:
    """``run(session)`` of the mode's file, imported only now so that reading the names stays fast."""
    run: Callable[..., dict[str, object]] = import_module(f"{__name__}.{mode}").run
    return run
