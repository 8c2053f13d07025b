"""The inference modes: one line each, and one file of the same name."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Mode:
    """What a mode needs to be given."""

    reads_images: bool
    of_training: bool = False
    """Whether it reads the training split, where ``[synthesis] split`` does not say."""
    draws_codes: bool = False
    """Whether ``[synthesis] prior_run`` is for it."""


MODES: dict[str, Mode] = {
    "reconstruction": Mode(reads_images=True),
    "generation": Mode(reads_images=False, draws_codes=True),
    "encoding": Mode(reads_images=True),
    "decoding": Mode(reads_images=False),
    "likelihood": Mode(reads_images=True),
    "analysis": Mode(reads_images=True),
    "interpolation": Mode(reads_images=True),
    "layer_inspection": Mode(reads_images=False),
    "div_stats": Mode(reads_images=True, of_training=True),
    "progressive": Mode(reads_images=True),
}


def runner(mode: str) -> Callable[..., dict[str, object]]:
    """``run(session)`` of the mode's file, imported only now: the names are needed where the files are not."""
    run: Callable[..., dict[str, object]] = import_module(f"{__name__}.{mode}").run
    return run
