"""The two towers of Efficient-VDVAE as plain values, and the check that their stages fit together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lvae_torch.errors import CfgError


@dataclass(frozen=True)
class Cells:
    """The residual cells in each block of a stage."""

    count: int = 1
    """Cells per block."""
    inner_layers: int = 2
    """Convolutions between the first and the last one of a cell."""
    ratio: float = 0.25
    """Width inside a cell as a share of the width around it."""
    kernel: int = 3

    def inner_width(self, width: int) -> int:
        return int(width * self.ratio)


@dataclass(frozen=True)
class UpStage:
    """Bottom-up blocks of one resolution; the last one makes the skip map, and pools if ``stride`` > 1."""

    width: int
    skip_width: int
    cells: Cells = Cells()
    n_blocks: int = 1
    stride: int = 1


@dataclass(frozen=True)
class DownStage:
    """Top-down blocks of one resolution, one latent layer each; the first one unpools if ``stride`` > 1."""

    width: int
    z_channels: int
    cells: Cells = Cells()
    n_blocks: int = 1
    stride: int = 1


def check_towers(up: Sequence[UpStage], down: Sequence[DownStage]) -> None:
    """Check that stages fit their neighbours and their partners: down stage i belongs to up stage n - 1 - i.

    Raises:
        CfgError: naming every stage that does not fit, counted from 0.
    """
    if problems := list(_problems(up, down)):
        raise CfgError("the stages do not fit together:\n  " + "\n  ".join(problems))


def _problems(up: Sequence[UpStage], down: Sequence[DownStage]) -> Iterator[str]:
    if not up or len(up) != len(down):
        yield f"{len(up)} stages up and {len(down)} down; give as many, at least one."
        return
    if up[-1].stride != 1:
        yield f"up stage {len(up) - 1} pools by {up[-1].stride}, but nothing follows that pooling; give it stride 1."
    for i, (one, partner) in enumerate(zip(up, reversed(down), strict=True)):
        j = len(up) - 1 - i
        if one.stride != partner.stride:
            yield f"up stage {i} pools by {one.stride}, its partner, down stage {j}, unpools by {partner.stride}."
        if one.skip_width != partner.width:
            yield f"up stage {i} has skip width {one.skip_width}, its partner, down stage {j}, width {partner.width}."
        for name, stage in ((f"up stage {i}", one), (f"down stage {j}", partner)):
            if stage.cells.inner_width(stage.width) < 1:
                yield f"{name}: ratio {stage.cells.ratio} of width {stage.width} leaves no channel inside its cells."
    for i, (one, after) in enumerate(pairwise(up)):
        if one.width != after.width and one.stride == 1:
            yield f"up stages {i} and {i + 1} have widths {one.width} and {after.width}, with no pooling between them."
    for i, (above, below) in enumerate(pairwise(down), start=1):
        if above.width != below.width and below.stride == 1:
            yield f"down stages {i - 1} and {i} have widths {above.width} and {below.width}, with no unpooling between."
