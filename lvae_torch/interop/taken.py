"""A run of another program, read and named as ours is, but not written yet."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lvae_torch.data.shapes import ImageShape

Part = Callable[[], Iterable[tuple[str, Tensor]]]
"""Gives (our name, tensor) of every weight, or of one moment of each; read when it is its turn, on the CPU."""


@dataclass(frozen=True)
class Moments:
    """What the optimizer remembers."""

    updates: int
    """Updates that were applied."""
    parts: Mapping[str, Part]
    """By the name that PyTorch has for it, such as ``exp_avg``."""


@dataclass(frozen=True)
class Taken:
    """Settings, weights and counts of a run."""

    program: str
    cfg: str
    """Text of a cfg, ours or one that ``hparams`` translates."""
    cfg_name: str
    """What messages call that text."""
    files: tuple[Path, ...]
    """What weights and moments are read from."""
    images: tuple[ImageShape, int] | None
    """Shape (C, H, W) and pixel levels of what it was trained on; None where only our dump knows."""
    step: int
    """Steps taken; 0 where nothing says how many."""
    raw: Part | None = None
    averaged: Part | None = None
    """At least one of both is there."""
    moments: Moments | None = None
    dataset: str | None = None
    """A name for the dump of its images, where none that we make is meant; a user's own comes first."""
    exact: tuple[str, ...] = ()
    """Overrides (``section.key=value``) that make schedules those of the other program."""
    notes: tuple[str, ...] = ()
    """What a user should know, one line each."""
