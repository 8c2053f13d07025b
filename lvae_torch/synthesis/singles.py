"""Images as files of their own."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from lvae_torch.reporting.grids import save_png, to_uint8


def save_singles(folder: Path, numbers: Sequence[int], images: Tensor) -> None:
    """Write each of ``images``, (B, C, H, W) in [0, 1], as ``folder/<number>.png`` in its own size."""
    for number, pixels in zip(numbers, to_uint8(images), strict=True):
        save_png(folder / f"{number:06d}.png", pixels)
