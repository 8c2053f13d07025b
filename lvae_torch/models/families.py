"""The model families: one line each."""

from lvae_torch.models.efficient_vdvae.section import EfficientVDVAESection
from lvae_torch.models.ladder.section import HierarchicalVAESection, LadderSection
from lvae_torch.models.pixelcnn.section import PixelCNNSection
from lvae_torch.models.section import ModelSection
from lvae_torch.models.spatial_lvae.section import SpatialLVAESection
from lvae_torch.models.vae.section import VAESection, VLAESection
from lvae_torch.models.vdvae.section import VDVAESection
from lvae_torch.models.vqvae.section import VQVAESection

FAMILIES: dict[str, type[ModelSection]] = {
    "ladder": LadderSection,
    "hierarchical_vae": HierarchicalVAESection,
    "vae": VAESection,
    "vlae": VLAESection,
    "spatial_lvae": SpatialLVAESection,
    "efficient_vdvae": EfficientVDVAESection,
    "vdvae": VDVAESection,
    "vqvae": VQVAESection,
    "pixelcnn": PixelCNNSection,
}
