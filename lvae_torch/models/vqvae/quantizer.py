"""Quantizers map vectors to codes and back. Shapes: B batch, D channels, H and W, N = BHW positions, K codes."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, normalize

from lvae_torch.models.vqvae.codebook import Codebook, k_means, nearest

Through = Callable[[Tensor, Tensor], Tensor]
"""(z_e, z_q), both (B, D, H, W) -> z_q, whose gradient flows to z_e but not to the codebook."""


def straight_through(z_e: Tensor, z_q: Tensor) -> Tensor:
    """Exactly z_q; its gradient passes unchanged to z_e (van den Oord et al. 2017)."""
    return z_q.detach() + (z_e - z_e.detach())


def rotation_trick(z_e: Tensor, z_q: Tensor) -> Tensor:
    """Exactly z_q; its gradient reaches z_e through the rotation and scaling that map z_e to z_q.

    R z = z - 2 r (r.z) + 2 q (e.z) rotates in the plane of both vectors, where e and q are their directions and r is
    the direction halfway between (Fifty et al. 2024, https://arxiv.org/abs/2410.06424).
    """
    with torch.no_grad():
        e, q = normalize(z_e, dim=1), normalize(z_q, dim=1)
        halfway = normalize(e + q, dim=1)
        scale = z_q.norm(dim=1, keepdim=True) / z_e.norm(dim=1, keepdim=True).clamp(min=1e-12)
    along_halfway, along_e = ((direction * z_e).sum(dim=1, keepdim=True) for direction in (halfway, e))
    return straight_through(scale * (z_e - 2 * halfway * along_halfway + 2 * q * along_e), z_q)


class VectorQuantizer(nn.Module):
    """Replaces each vector of a map by the nearest code vector."""

    def __init__(self, codebook: Codebook, commitment: float, through: Through, starts_at_data: bool = False) -> None:
        """``commitment``: weight of the penalty that pulls encodings towards their codes."""
        super().__init__()
        self.codebook = codebook
        self.commitment = commitment
        self.through = through
        self.starts_at_data = starts_at_data
        self.n_codes = codebook.n_codes
        self.z_channels = codebook.dim

    def codes(self, z_e: Tensor) -> Tensor:
        """The nearest code of each position, int64 (B, 1, H, W)."""
        with torch.no_grad(), _full_precision(z_e):
            chosen = nearest(as_rows(z_e), self.codebook.vectors)
        return chosen.view(z_e.shape[0], 1, *z_e.shape[2:])

    def vectors(self, codes: Tensor) -> Tensor:
        """The code vectors z_q, (B, D, H, W), of codes (B, 1, H, W)."""
        return embedding(codes.squeeze(1), self.codebook.vectors).permute(0, 3, 1, 2)

    def penalties(self, z_e: Tensor, z_q: Tensor) -> Mapping[str, Tensor]:
        """Mean squared distances between encodings and codes, (B,) each; "codebook" only if gradients move it."""
        terms = {"commitment": self.commitment * _mean_square(z_e, z_q.detach())}
        return {"codebook": _mean_square(z_q, z_e.detach()), **terms} if self.codebook.moves_by_gradient else terms

    def learn(self, z_e: Tensor, codes: Tensor) -> None:
        """Update the codebook without gradients after a training step."""
        with _full_precision(z_e):
            self.codebook.learn(as_rows(z_e.detach()), codes.flatten())

    def initialize(self, z_e: Tensor) -> None:
        """Put the codes at cluster centres of one batch's encodings.

        Raises:
            ValueError: if the batch has fewer encodings than there are codes.
        """
        self.codebook.start_at(k_means(as_rows(z_e.detach()), self.n_codes))


class FiniteScalarQuantizer(nn.Module):
    """Rounds each channel to a few levels in [-1, 1]; a code names a combination of levels (Mentzer et al. 2023).

    It has no codebook and adds no penalty to the loss.
    """

    levels: Tensor
    place_values: Tensor
    starts_at_data = False

    def __init__(self, levels: Sequence[int]) -> None:
        """``levels``: number of levels of each channel, at least 2."""
        super().__init__()
        self.n_codes = prod(levels)
        self.z_channels = len(levels)
        columns = torch.tensor(levels).view(-1, 1, 1)
        self.register_buffer("levels", columns, persistent=False)
        self.register_buffer("place_values", columns.cumprod(dim=0) // columns, persistent=False)

    def codes(self, z_e: Tensor) -> Tensor:
        """The code of each position, int64 (B, 1, H, W); the first channel is the lowest digit."""
        places = torch.round((z_e.detach().tanh() + 1) / 2 * (self.levels - 1))
        digits = places.nan_to_num().long()  # no number is no level: the loss is none either, and the step is skipped
        return (digits * self.place_values).sum(dim=1, keepdim=True)

    def vectors(self, codes: Tensor) -> Tensor:
        """The code vectors z_q, (B, D, H, W), of codes (B, 1, H, W)."""
        digits = codes // self.place_values % self.levels
        return 2 * digits / (self.levels - 1) - 1

    def through(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        """Exactly z_q, with the gradient of tanh; the gradient passes straight through the rounding."""
        return straight_through(z_e.tanh(), z_q)

    def penalties(self, z_e: Tensor, z_q: Tensor) -> Mapping[str, Tensor]:
        """Empty."""
        return {}

    def learn(self, z_e: Tensor, codes: Tensor) -> None:
        """Nothing."""

    def initialize(self, z_e: Tensor) -> None:
        """Nothing."""


Quantizer = VectorQuantizer | FiniteScalarQuantizer


def as_rows(z: Tensor) -> Tensor:
    """(B, D, H, W) -> (N, D), positions in B, H, W order."""
    return z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])


def _full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off inside, because half precision cannot separate close codes."""
    device = like.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def _mean_square(one: Tensor, other: Tensor) -> Tensor:
    return ((one - other) ** 2).flatten(1).mean(dim=1)
