"""The model families: one line each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lvae_torch.models import ladder_section, spatial_lvae_section
from lvae_torch.sections import Section


@dataclass(frozen=True)
class Family:
    """A family's ``[model]`` section, and what builds the model from it."""

    settings: type[Section]
    build: Callable[[Any, tuple[int, int, int], int], Any]
    """(section, image shape (C, H, W), pixel levels) -> an ``nn.Module`` under ``models.contract.Model``."""


FAMILIES: dict[str, Family] = {
    "ladder": Family(ladder_section.LadderSection, ladder_section.build_ladder),
    "hierarchical_vae": Family(ladder_section.HierarchicalVAESection, ladder_section.build_hierarchical),
    "spatial_lvae": Family(spatial_lvae_section.SpatialLVAESection, spatial_lvae_section.build),
}
