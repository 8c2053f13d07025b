"""Statistics of each latent unit over a data set: how many units are in use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lvae_torch.distributed.place import float64_device, in_float64
from lvae_torch.models.contract import Latent, Shape


class UnitStatistics:
    """Sums up, for each latent unit, its KL and the variance of its posterior mean over a data set."""

    def __init__(self, shapes: Sequence[Shape], device: torch.device) -> None:
        device = float64_device(device)
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        # For each layer: sums of the posterior mean, of its square, and of the KL.
        self.sums = [torch.zeros(3, *shape, dtype=torch.float64, device=device) for shape in shapes]

    def update(self, latents: tuple[Latent, ...]) -> None:
        """Add the latents of one encoded batch."""
        self.add([sums_of_units(latent) for latent in latents], latents[0].z.shape[0] if latents else 0)

    def add(self, sums_of_layers: Sequence[Tensor], n_images: Tensor | int) -> None:
        """Add ``sums_of_units`` of each layer of a batch of so many images."""
        for sums, more in zip(self.sums, sums_of_layers, strict=True):
            sums += more
        self.count += n_images

    def result(self, sum_over_ranks: Callable[[Tensor], Tensor]) -> "Units":
        """Means over the batches of all ranks."""
        count = sum_over_ranks(self.count)
        moments = [sum_over_ranks(sums) / count for sums in self.sums]
        return Units(tuple(m[1] - m[0] ** 2 for m in moments), tuple(m[2] for m in moments))


def sums_of_units(latent: Latent) -> Tensor:
    """Of the posterior mean, of its square, and of the KL over the images of a batch, (3, ...), float64."""
    home = float64_device(latent.z.device)
    mean = in_float64(latent.encoded.mean)
    kl = latent.kl_of_units.to(home).sum(dim=0, dtype=torch.float64)
    return torch.stack([mean.sum(dim=0), (mean**2).sum(dim=0), kl])


@dataclass(frozen=True)
class Units:
    """One tensor per layer, top first, with the shape of the layer's z."""

    variance: tuple[Tensor, ...]
    """Variance of the posterior mean over the data."""
    kl: tuple[Tensor, ...]
    """Mean KL(q||p), nats."""

    def active(self, threshold: float = 0.01) -> tuple[int, ...]:
        """Number of units per layer whose posterior mean has a variance above ``threshold`` (Burda et al. 2016)."""
        return tuple(int((variance > threshold).sum()) for variance in self.variance)

    def informative(self, threshold: float = 0.01) -> tuple[int, ...]:
        """Number of units per layer with more than ``threshold`` nats of KL (as in the Ladder VAE paper)."""
        return tuple(int((kl > threshold).sum()) for kl in self.kl)
