"""The prior of a variational lossy autoencoder (Chen et al. 2017): an autoregressive flow, learned with the rest.

The paper's autoregressive decoder is no part of it: this is a VAE with another p(z).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from lvae_torch.distributions.autoregressive_flow import AutoregressiveFlow
from lvae_torch.models.vae.made import MADE, cyclic_degrees


class FlowPrior(nn.Module):
    """p(z) through a MADE with hidden layers of these widths."""

    def __init__(
        self,
        z_dim: int,
        widths: Sequence[int],
        bounded: bool = True,
        degrees: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """``degrees`` of the hidden units; the cyclic ones if not given, which follow from the widths alone."""
        super().__init__()
        self.bounded = bounded
        self.made = MADE(z_dim, cyclic_degrees(z_dim, widths) if degrees is None else degrees)

    def forward(self, zeros: Tensor) -> AutoregressiveFlow:
        """zeros (B, D) -> p(z) of B draws."""
        return AutoregressiveFlow(self.made, zeros, self.bounded)
