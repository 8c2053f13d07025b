"""From vectors to codes and back. Shapes: B batch, D channels, H W height and width, N = BHW positions, K codes."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, normalize

from lvae_torch.models.vqvae.codebook import Codebook, k_means, nearest

Through = Callable[[Tensor, Tensor], Tensor]
"""(z_e, z_q), both (B, D, H, W) -> z_q with a gradient for z_e, and none for the codebook."""


def straight_through(z_e: Tensor, z_q: Tensor) -> Tensor:
    """z_q to the bit; z_e gets its gradient as it is (van den Oord et al. 2017)."""
    return z_q.detach() + (z_e - z_e.detach())


def rotation_trick(z_e: Tensor, z_q: Tensor) -> Tensor:
    """z_q to the bit; z_e gets the gradient through the rotation and scaling that make it z_q (Fifty et al. 2024).

    The rotation is that in the plane of both: R z = z - 2 r (r.z) + 2 q (e.z), with e and q their directions and r
    the one halfway.
    """
    with torch.no_grad():
        e, q = normalize(z_e, dim=1), normalize(z_q, dim=1)
        halfway = normalize(e + q, dim=1)
        scale = z_q.norm(dim=1, keepdim=True) / z_e.norm(dim=1, keepdim=True).clamp(min=1e-12)
    along_halfway, along_e = ((direction * z_e).sum(dim=1, keepdim=True) for direction in (halfway, e))
    return straight_through(scale * (z_e - 2 * halfway * along_halfway + 2 * q * along_e), z_q)


class VectorQuantizer(nn.Module):
    """Each vector of a map becomes the nearest one of a codebook."""

    def __init__(self, codebook: Codebook, commitment: float, through: Through, starts_at_data: bool = False) -> None:
        """``commitment``: weight of the term that pulls encodings to their codes."""
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
        """z_q, (B, D, H, W), of codes (B, 1, H, W)."""
        return embedding(codes.squeeze(1), self.codebook.vectors).permute(0, 3, 1, 2)

    def penalties(self, z_e: Tensor, z_q: Tensor) -> Mapping[str, Tensor]:
        """Mean squares over a map's elements, (B,) each: of codes to encodings, where gradients move them, and back."""
        terms = {"commitment": self.commitment * _mean_square(z_e, z_q.detach())}
        return {"codebook": _mean_square(z_q, z_e.detach()), **terms} if self.codebook.moves_by_gradient else terms

    def learn(self, z_e: Tensor, codes: Tensor) -> None:
        """What a training step teaches beside gradients."""
        with _full_precision(z_e):
            self.codebook.learn(as_rows(z_e.detach()), codes.flatten())

    def initialize(self, z_e: Tensor) -> None:
        """Begin at the clusters of one batch's encodings.

        Raises:
            ValueError: if the batch has fewer of them than there are codes.
        """
        self.codebook.start_at(k_means(as_rows(z_e.detach()), self.n_codes))


class FiniteScalarQuantizer(nn.Module):
    """Each channel rounded to a few levels in [-1, 1]; a code names a combination of them (Mentzer et al. 2023).

    There is no codebook, and nothing to be trained on beside the likelihood.
    """

    levels: Tensor
    place_values: Tensor
    starts_at_data = False

    def __init__(self, levels: Sequence[int]) -> None:
        """``levels``: of each channel, 2 or more."""
        super().__init__()
        self.n_codes = prod(levels)
        self.z_channels = len(levels)
        columns = torch.tensor(levels).view(-1, 1, 1)
        self.register_buffer("levels", columns, persistent=False)
        self.register_buffer("place_values", columns.cumprod(dim=0) // columns, persistent=False)

    def codes(self, z_e: Tensor) -> Tensor:
        """int64 (B, 1, H, W); the first channel's level counts by ones."""
        digits = torch.round((z_e.detach().tanh() + 1) / 2 * (self.levels - 1)).long()
        return (digits * self.place_values).sum(dim=1, keepdim=True)

    def vectors(self, codes: Tensor) -> Tensor:
        """z_q, (B, D, H, W), of codes (B, 1, H, W)."""
        digits = codes // self.place_values % self.levels
        return 2 * digits / (self.levels - 1) - 1

    def through(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        """z_q to the bit, with the gradient of tanh: rounding is passed straight through."""
        return straight_through(z_e.tanh(), z_q)

    def penalties(self, z_e: Tensor, z_q: Tensor) -> Mapping[str, Tensor]:
        """None."""
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
    """Inside, products are as wide as their factors: half precision cannot tell near codes apart."""
    device = like.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def _mean_square(one: Tensor, other: Tensor) -> Tensor:
    return ((one - other) ** 2).flatten(1).mean(dim=1)
