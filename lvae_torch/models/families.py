"""The model families: one line each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lvae_torch.cfg.section import Section
from lvae_torch.models.efficient_vdvae import section as efficient_vdvae_section
from lvae_torch.models.ladder import section as ladder_section
from lvae_torch.models.pixelcnn import section as pixelcnn_section
from lvae_torch.models.spatial_lvae import section as spatial_lvae_section
from lvae_torch.models.vae import section as vae_section
from lvae_torch.models.vqvae import section as vqvae_section


@dataclass(frozen=True)
class Family:
    """A family's ``[model]`` section, and what builds the model from it."""

    settings: type[Section]
    build: Callable[[Any, tuple[int, int, int], int], Any]
    """(section, image shape (C, H, W), pixel levels) -> an ``nn.Module`` under ``models.contract.Model``."""


FAMILIES: dict[str, Family] = {
    "ladder": Family(ladder_section.LadderSection, ladder_section.build_ladder),
    "hierarchical_vae": Family(ladder_section.HierarchicalVAESection, ladder_section.build_hierarchical),
    "vae": Family(vae_section.VAESection, vae_section.build_vae),
    "vlae": Family(vae_section.VLAESection, vae_section.build_vlae),
    "spatial_lvae": Family(spatial_lvae_section.SpatialLVAESection, spatial_lvae_section.build),
    "efficient_vdvae": Family(efficient_vdvae_section.EfficientVDVAESection, efficient_vdvae_section.build),
    "vqvae": Family(vqvae_section.VQVAESection, vqvae_section.build),
    "pixelcnn": Family(pixelcnn_section.PixelCNNSection, pixelcnn_section.build),
}
