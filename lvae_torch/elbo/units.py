"""What each latent unit does over a data set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lvae_torch.distributed.place import float64_device
from lvae_torch.models.contract import Latent, Shape


class UnitStatistics:
    """What each latent unit does over a data set: its mean KL, and how much its posterior mean varies."""

    def __init__(self, shapes: Sequence[Shape], device: torch.device) -> None:
        device = float64_device(device)
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        # Per layer: sums of the posterior mean, of its square, and of the KL.
        self.sums = [torch.zeros(3, *shape, dtype=torch.float64, device=device) for shape in shapes]

    def update(self, latents: tuple[Latent, ...]) -> None:
        """Add one encoded batch."""
        for sums, latent in zip(self.sums, latents, strict=True):
            mean = latent.encoded.mean.to(sums.device, torch.float64)
            kl = latent.kl_of_units.to(sums.device).sum(dim=0, dtype=torch.float64)
            sums += torch.stack([mean.sum(dim=0), (mean**2).sum(dim=0), kl])
        self.count += latents[0].z.shape[0] if latents else 0

    def result(self, sum_over_ranks: Callable[[Tensor], Tensor]) -> "Units":
        """Means over the batches of all ranks."""
        count = sum_over_ranks(self.count)
        moments = [sum_over_ranks(sums) / count for sums in self.sums]
        return Units(tuple(m[1] - m[0] ** 2 for m in moments), tuple(m[2] for m in moments))


@dataclass(frozen=True)
class Units:
    """Per layer, top first, of the layer's shape each."""

    variance: tuple[Tensor, ...]
    """Of the posterior mean over the data."""
    kl: tuple[Tensor, ...]
    """Mean KL(q||p), nats."""

    def active(self, threshold: float = 0.01) -> tuple[int, ...]:
        """Units whose posterior mean varies by more than ``threshold`` (Burda et al. 2016), by layer."""
        return tuple(int((variance > threshold).sum()) for variance in self.variance)

    def informative(self, threshold: float = 0.01) -> tuple[int, ...]:
        """Units with more than ``threshold`` nats of KL (the Ladder VAE paper's count), by layer."""
        return tuple(int((kl > threshold).sum()) for kl in self.kl)
