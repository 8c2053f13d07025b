"""The likelihood of a whole split; any number of ranks together evaluate every image exactly once."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from lvae_torch.data.images import Images
from lvae_torch.data.run_data import RunData
from lvae_torch.distributed.processes import Processes
from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.distributed.stopping import StopRequest
from lvae_torch.elbo.batch_norm import estimate, kept_statistics
from lvae_torch.elbo.bounds import Terms, bits_entry, code_usage, elbo_terms, iw_bound
from lvae_torch.elbo.section import ValSection
from lvae_torch.elbo.units import Units, UnitStatistics
from lvae_torch.models.contract import Model, Output
from lvae_torch.models.sources import posterior_sample

Batches = Iterable[tuple[int, Tensor]]
"""(j, x) with x (b, C, H, W): each rank's share of fixed global batches. Noise depends on j, not on the rank."""


@dataclass(frozen=True)
class Evaluation:
    """Means over a split, in nats per image."""

    n_images: int
    nll: float
    """-log p(x|z), one posterior sample per image."""
    kl: tuple[float, ...]
    """KL(q||p) of each layer, top first; in closed form if one exists."""
    units: Units
    """Statistics of each latent unit."""
    iw_samples: int = 0
    iw_bound: float | None = None
    """Upper bound on -log p(x) with ``iw_samples`` samples; None if it was not computed."""
    published_nll: float | None = None
    """-log p(x|z) with the approximations of the family's original program; None if not asked for, or it has none."""
    extras: Mapping[str, float] = field(default_factory=dict)
    """Numbers of some families: mean penalties, and usage of the codes over the whole split."""

    @property
    def nelbo(self) -> float:
        return self.nll + sum(self.kl)

    @property
    def published_nelbo(self) -> float | None:
        return None if self.published_nll is None else self.published_nll + sum(self.kl)

    def scalars(self, n_dims: int | None) -> dict[str, float]:
        """All numbers under their names in reports; layers are counted from 0, top first."""
        values = {"nelbo": self.nelbo, "nll": self.nll, "kl": sum(self.kl), **bits_entry("bpd", self.nelbo, n_dims)}
        values |= {} if n_dims is None else {"nats_per_dim": self.nelbo / n_dims}
        values |= {f"kl/{i:02d}": kl for i, kl in enumerate(self.kl)} | dict(self.extras)
        for name, counts in (("active_units", self.units.active()), ("informative_units", self.units.informative())):
            values |= {name: float(sum(counts)), **{f"{name}/{i:02d}": float(n) for i, n in enumerate(counts)}}
        if self.iw_bound is not None:
            values |= {"iw_bound": self.iw_bound, **bits_entry("iw_bpd", self.iw_bound, n_dims)}
        if self.published_nelbo is not None:
            as_published = bits_entry("as_published/bpd", self.published_nelbo, n_dims)
            values |= {"as_published/nelbo": self.published_nelbo, **as_published}
        return values


@torch.no_grad()
def evaluate(
    model: Model,
    batches: Batches,
    processes: Processes,
    seed: int,
    iw_samples: int = 0,
    chunk: int = 100,
    as_published: bool = False,
) -> Evaluation:
    """Evaluate ``model`` (in evaluation mode) on ``batches`` on its device.

    Args:
        iw_samples: K of the importance-weighted bound; 0 skips it.
        chunk: images times samples in one pass of that bound.
        as_published: score also with the approximations of the family's original program, where it has some.
    """
    totals: dict[str, Tensor] = {}
    units = UnitStatistics(model.latent_shapes(), processes.device)
    for j, x in batches:
        seed_everything("evaluation", seed, j)
        out = model(x, posterior_sample)
        terms = elbo_terms(x, out)
        bound = iw_bound(model, x, iw_samples, chunk) if iw_samples else x.new_zeros(x.shape[0])
        batch = _sums(terms, bound, published_nll(x, out) if as_published else None)
        totals = {name: totals[name] + value for name, value in batch.items()} if totals else batch
        units.update(out.latents)
    if not totals:  # fewer batches than ranks: add zeros under the same names as other ranks
        x = torch.zeros(1, *model.image_shape, device=processes.device)
        out = model(x, posterior_sample)
        terms = elbo_terms(x, out)
        batch = _sums(terms, terms.nll, published_nll(x, out) if as_published else None)
        totals = {name: torch.zeros_like(value) for name, value in batch.items()}
    totals = {name: processes.sum_(value) for name, value in totals.items()}
    count = totals.pop("count")
    usage = {int(name.split("/")[1]): totals.pop(name) for name in tuple(totals) if name.startswith("usage/")}
    means = {name: value / count for name, value in totals.items()}
    bound_mean, nll, kl = (means.pop(name) for name in ("bound", "nll", "kl"))
    means |= code_usage(usage)
    published = means.pop("published", None)
    return Evaluation(
        n_images=int(count),
        nll=float(nll),
        kl=tuple(kl.tolist()),
        units=units.result(processes.sum_),
        iw_samples=iw_samples,
        iw_bound=float(bound_mean) if iw_samples else None,
        published_nll=None if published is None else float(published),
        extras={name: float(number) for name, number in means.items()},
    )


def published_nll(x: Tensor, out: Output) -> Tensor | None:
    """-log p(x|z) as the family's original program approximates it, nats, (B,); None where it has none of its own."""
    return None if out.as_published is None else -out.as_published().log_prob(x)


def _sums(terms: Terms, bound: Tensor, published: Tensor | None = None) -> dict[str, Tensor]:
    """Sums over a batch, float64."""
    per_image = {"nll": terms.nll, "kl": terms.kl, "bound": -bound, "count": torch.ones_like(terms.nll)}
    per_image |= {} if published is None else {"published": published}
    per_image |= {f"penalty/{name}": penalty for name, penalty in terms.penalties.items()}
    sums = {name: values.sum(dim=0, dtype=torch.float64) for name, values in per_image.items()}
    return sums | {f"usage/{i}": counts.double() for i, counts in terms.usage.items()}


def take_statistics(model: Model, training: Images, batch_size: int, seed: int, processes: Processes) -> None:
    """Re-estimate the batch norm statistics of ``model`` over the training images.

    Args:
        batch_size: images per batch over all ranks, as in training.
    """

    def passes() -> Iterator[Callable[[], object]]:
        for j, indices in training.batches(batch_size, processes):
            if j and len(indices) < batch_size:
                continue  # as in training, which has no smaller batch; 1 image would have no statistics
            seed_everything("batch norm", seed, j)
            yield partial(model, training.at(indices, processes.device), posterior_sample)

    estimate(model, passes(), processes.sum_)


@dataclass(frozen=True)
class Evaluator:
    """Evaluates the model of a run on its validation split while it trains."""

    section: ValSection
    model: Model
    data: RunData
    processes: Processes
    stop: StopRequest
    seed: int

    def __call__(self, is_last: bool) -> Evaluation:
        """Evaluate the split; the last evaluation also computes the importance-weighted bound.

        Raises:
            Preempted: after a signal.
        """
        batches, rounds = self.data.validation_batches(self.section.batch_size, self.processes)
        was_training = self.model.training
        self.model.eval()
        self.processes.broadcast_(self.model.buffers())  # ranks have different running statistics
        iw_samples = self.section.iw_samples if is_last else 0
        try:
            with self._statistics():
                return evaluate(
                    self.model,
                    self.stop.watch(batches, rounds),
                    self.processes,
                    self.seed,
                    iw_samples,
                    as_published=self.section.as_published,
                )
        finally:
            self.model.train(was_training)

    @contextmanager
    def _statistics(self) -> Iterator[None]:
        """Inside, the model uses the batch norm statistics that ``[val] batch_norm`` selects."""
        if self.section.batch_norm == "running":
            yield
            return
        with kept_statistics(self.model):
            take_statistics(self.model, self.data.training, self.data.order.batch_size, self.seed, self.processes)
            yield
