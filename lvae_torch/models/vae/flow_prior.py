"""The learned flow prior of the variational lossy autoencoder (Chen et al. 2017, https://arxiv.org/abs/1611.02731).

The paper's autoregressive decoder is not included: this is a VAE with another p(z).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from lvae_torch.distributions.autoregressive_flow import AutoregressiveFlow
from lvae_torch.models.vae.made import MADE, cyclic_degrees


class FlowPrior(nn.Module):
    """p(z) as an autoregressive flow whose MADE has hidden layers of these widths."""

    def __init__(
        self,
        z_dim: int,
        widths: Sequence[int],
        bounded: bool = True,
        degrees: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """``degrees`` of the hidden units; cyclic ones if not given."""
        super().__init__()
        self.bounded = bounded
        self.made = MADE(z_dim, cyclic_degrees(z_dim, widths) if degrees is None else degrees)

    def forward(self, zeros: Tensor) -> AutoregressiveFlow:
        """zeros (B, D) -> p(z) for B draws."""
        return AutoregressiveFlow(self.made, zeros, self.bounded)
