"""Saves images as single files."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from torch import Tensor

from lvae_torch.reporting.grids import in_colour, save_png, to_uint8

SINGLES, TARGETS = "singles", "targets"


def save_singles(
    folder: Path, numbers: Sequence[int], images: Tensor, names: Sequence[str] | Mapping[int, str] | None = None
) -> None:
    """Write each of ``images``, (B, C, H, W) in [0, 1], in its own size, as ``<names[number]>.png`` or its number."""
    for number, pixels in zip(numbers, in_colour(to_uint8(images)), strict=True):
        save_png(folder / f"{f'{number:06d}' if names is None else names[number]}.png", pixels)


def single_names(names: Sequence[str]) -> list[str]:
    """Turn file names, which may contain folders, into distinct names for pictures in one folder, without suffix."""
    stems = [PurePosixPath(name.replace("/", "_")).stem for name in names]
    return stems if len(set(stems)) == len(stems) else [f"{i:06d}_{stem}" for i, stem in enumerate(stems)]
