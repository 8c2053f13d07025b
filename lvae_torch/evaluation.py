"""The likelihood of a whole split, summed exactly: every image once, whatever the number of ranks."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lvae_torch.models.contract import Model
from lvae_torch.models.sources import posterior_sample
from lvae_torch.objectives import Units, UnitStatistics, bits_per_dim, elbo_terms, iw_bound
from lvae_torch.processes import Processes
from lvae_torch.seeding import seed_everything

Batches = Iterable[tuple[int, Tensor]]
"""(j, x), x (b, C, H, W): fixed global batches, each rank getting its own. Noise is drawn for j, not for the rank."""


@dataclass(frozen=True)
class Evaluation:
    """Means over a split, in nats per image."""

    n_images: int
    nll: float
    """-log p(x|z), one posterior sample per image."""
    kl: tuple[float, ...]
    """KL(q||p) of each layer in closed form, top first."""
    units: Units
    """What each latent unit does."""
    iw_samples: int = 0
    iw_bound: float | None = None
    """Estimate of -log p(x) with that many samples; None if not asked for."""

    @property
    def nelbo(self) -> float:
        return self.nll + sum(self.kl)

    def scalars(self, n_dims: int) -> dict[str, float]:
        """The numbers under the names they have in every report; layers counted from 0, top first."""
        values = {"nelbo": self.nelbo, "nll": self.nll, "kl": sum(self.kl), "bpd": bits_per_dim(self.nelbo, n_dims)}
        values |= {f"kl/{i:02d}": kl for i, kl in enumerate(self.kl)}
        for name, counts in (("active_units", self.units.active()), ("informative_units", self.units.informative())):
            values |= {name: float(sum(counts)), **{f"{name}/{i:02d}": float(n) for i, n in enumerate(counts)}}
        if self.iw_bound is not None:
            values |= {"iw_bound": self.iw_bound, "iw_bpd": bits_per_dim(self.iw_bound, n_dims)}
        return values


@torch.no_grad()
def evaluate(
    model: Model,
    batches: Batches,
    processes: Processes,
    seed: int,
    iw_samples: int = 0,
    chunk: int = 100,
) -> Evaluation:
    """Evaluate ``model`` (in evaluation mode) on ``batches`` on its device.

    Args:
        iw_samples: K of the importance-weighted bound; 0 leaves it out.
        chunk: images times samples in one pass of that bound.
    """
    totals = torch.zeros(len(model.latent_shapes()) + 3, dtype=torch.float64, device=processes.device)
    units = UnitStatistics(model.latent_shapes(), processes.device)
    for j, x in batches:
        seed_everything("evaluation", seed, j)
        out = model(x, posterior_sample)
        terms = elbo_terms(x, out)
        bound = iw_bound(model, x, iw_samples, chunk) if iw_samples else x.new_zeros(x.shape[0])
        per_image = torch.cat([terms.nll[:, None], terms.kl, -bound[:, None], torch.ones_like(bound)[:, None]], dim=1)
        totals += per_image.sum(dim=0, dtype=torch.float64)
        units.update(out.latents)
    *sums, count = processes.sum_(totals).tolist()
    nll, *kl, bound_sum = (value / count for value in sums)
    return Evaluation(
        n_images=int(count),
        nll=nll,
        kl=tuple(kl),
        units=units.result(processes.sum_),
        iw_samples=iw_samples,
        iw_bound=bound_sum if iw_samples else None,
    )
