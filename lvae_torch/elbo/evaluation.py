"""The likelihood of a whole split; any number of ranks together evaluate every image exactly once."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lvae_torch.data.images import Images
from lvae_torch.data.labelled import Labelled
from lvae_torch.distributed.graph import Outputs
from lvae_torch.distributed.memory import is_out_of_memory
from lvae_torch.distributed.processes import Processes
from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.distributed.stopping import Rounds, nothing
from lvae_torch.elbo.batch_norm import estimate
from lvae_torch.elbo.bounds import bits_entry, code_usage, iw_bound
from lvae_torch.elbo.bounds import n_passes as n_passes_of_bound
from lvae_torch.elbo.passes import UNITS, Passes, elbo_sums, summed
from lvae_torch.elbo.units import Units, UnitStatistics
from lvae_torch.errors import say
from lvae_torch.models.contract import Model, of_classes
from lvae_torch.models.sources import posterior_sample

Batches = Iterable[tuple[int, Labelled]]
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
    nelbo_error: float | None = None
    """Standard error of -ELBO over the images; None for one image."""

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
        if self.nelbo_error is not None:
            values["nelbo_error"] = self.nelbo_error
        if self.iw_bound is not None:
            values |= {"iw_bound": self.iw_bound, **bits_entry("iw_bpd", self.iw_bound, n_dims)}
        if self.published_nelbo is not None:
            as_published = bits_entry("as_published/bpd", self.published_nelbo, n_dims)
            values |= {"as_published/nelbo": self.published_nelbo, **as_published}
        return values


class Sums:
    """What the batches of one rank have come to so far, float64."""

    def __init__(self, model: Model, device: torch.device) -> None:
        self.totals: dict[str, Tensor] = {}
        self.units = UnitStatistics(model.latent_shapes(), device)
        self.n_batches = 0

    def add(self, parts: Sequence[Outputs]) -> None:
        """The sums over one batch, in one or several parts."""
        for part in parts:
            units = [part[f"{UNITS}/{i}"] for i in range(len(self.units.sums))]
            known = self.totals or {name: torch.zeros_like(part[name]) for name in _of_the_whole(part)}
            # An evaluation that an older version began has fewer sums.
            self.totals = {name: total + part[name] for name, total in known.items()}
            self.units.add(units, part["count"])
        self.n_batches += 1

    def of_all_ranks(self, processes: Processes) -> dict[str, Any] | None:
        """Those of each rank, (world, ...), for ``take``; None unless every rank has some."""
        counts = self._stacked(torch.tensor(float(self.n_batches), device=self.units.count.device), processes)
        if not counts.all():
            return None
        totals = {name: self._stacked(total, processes) for name, total in self.totals.items()}
        units = [self._stacked(sums, processes) for sums in (self.units.count, *self.units.sums)]
        return {"n_batches": counts.int().tolist(), "totals": totals, "units": units}

    def take(self, state: Mapping[str, Any], rank: int) -> None:
        """Go on from what a rank had."""
        device = self.units.count.device
        self.n_batches = state["n_batches"][rank]
        self.totals = {name: stacked[rank].to(device) for name, stacked in state["totals"].items()}
        self.units.count, *self.units.sums = (stacked[rank].to(device) for stacked in state["units"])

    @staticmethod
    def _stacked(value: Tensor, processes: Processes) -> Tensor:
        stacked = value.new_zeros(processes.world, *value.shape)
        stacked[processes.rank] = value
        return processes.sum_(stacked)


@torch.no_grad()
def evaluate(
    model: Model,
    batches: Batches,
    processes: Processes,
    seed: int,
    iw_samples: int = 0,
    chunk: int = 100,
    after_pass: Callable[[], object] = nothing,
    sums: Sums | None = None,
    as_published: bool = False,
    is_graphed: bool = False,
) -> Evaluation:
    """Evaluate ``model`` (in evaluation mode) on ``batches`` on its device.

    Args:
        iw_samples: K of the importance-weighted bound; 0 skips it.
        chunk: images times samples in one pass of that bound.
        after_pass: called after each of ``n_passes`` passes of a batch; what it raises ends the evaluation.
        sums: of batches that were evaluated before; those of this rank are added to it.
        as_published: score also with the approximations of the family's original program, where it has some.
        is_graphed: replay the passes as CUDA graphs, which the device must have; they live while batches are alike.
    """
    sums, passes = sums or Sums(model, processes.device), Passes(model, as_published, is_graphed)
    for j, batch in batches:
        passes.begin(len(batch))
        seed_everything("evaluation", seed, j)
        sums.add(_Batch(model, passes, iw_samples, chunk, after_pass).evaluated(batch))
    totals, units = sums.totals, sums.units
    if not totals:  # fewer batches than ranks: nothing to add, under the names that the others have
        x = torch.zeros(1, *model.image_shape, device=processes.device)
        some = elbo_sums(model, as_published, (x, model.any_class(1)))
        totals = {name: torch.zeros_like(some[name]) for name in _of_the_whole(some)}
        totals["bound"] = torch.zeros_like(totals["nll"])
    totals = {name: processes.sum_(totals[name]) for name in sorted(totals)}  # in the same order on all ranks
    count = totals.pop("count")
    usage = {int(name.split("/")[1]): totals.pop(name) for name in tuple(totals) if name.startswith("usage/")}
    means = {name: value / count for name, value in totals.items()}
    bound_mean, nll, kl = (means.pop(name) for name in ("bound", "nll", "kl"))
    published, square = means.pop("published", None), means.pop("square", None)
    means |= code_usage(usage)
    return Evaluation(
        n_images=int(count),
        nll=float(nll),
        kl=tuple(kl.tolist()),
        units=units.result(processes.sum_),
        iw_samples=iw_samples,
        iw_bound=float(bound_mean) if iw_samples else None,
        published_nll=None if published is None else float(published),
        extras={name: float(number) for name, number in means.items()},
        nelbo_error=None if square is None else _error(float(square), float(nll + kl.sum()), int(count)),
    )


def _error(square: float, mean: float, n: int) -> float | None:
    """The standard error of the mean of ``n`` numbers, from the means of their squares and of themselves.

    NaN where one of the numbers is not finite.
    """
    return math.sqrt(max(square - mean**2, 0.0) / (n - 1)) if n > 1 else None  # in this order max keeps a NaN


def n_passes(n_images: int, iw_samples: int, chunk: int) -> int:
    """Passes of one batch: that of the ELBO, and those of the bound."""
    return 1 + (n_passes_of_bound(n_images, iw_samples, chunk) if iw_samples else 0)


class _Batch:
    """One batch; where the memory is too small for it, in two halves, which changes nothing but the noise drawn."""

    def __init__(
        self, model: Model, passes: Passes, iw_samples: int, chunk: int, after_pass: Callable[[], object]
    ) -> None:
        self._model, self._passes, self._iw_samples, self._chunk = model, passes, iw_samples, chunk
        self._after_pass = after_pass
        self._left, self._ticks, self._every = 0, 0, 1

    def evaluated(self, batch: Labelled) -> list[Outputs]:
        self._left = n_passes(len(batch), self._iw_samples, self._chunk)
        if (whole := self._if_it_fits(batch)) is not None:
            done = [whole]
        else:  # here, where nothing of the first try is alive any more
            self._every = 2  # there are twice as many passes, and other ranks count on those of the whole
            done = [self._part(half, max(1, self._chunk // 2)) for half in batch.chunk(2)]
        self._every = 1
        while self._left:
            self._over()
        return done

    def _if_it_fits(self, batch: Labelled) -> Outputs | None:
        try:
            return self._part(batch, self._chunk)
        except Exception as error:
            if not is_out_of_memory(error) or len(batch) < 2:
                raise
        say(
            f"evaluation: {len(batch)} images at once need more memory than there is; going on with half of them. "
            "Lower [val] batch_size."
        )
        return None

    def _part(self, batch: Labelled, chunk: int) -> Outputs:
        x, labels = batch.images, batch.labels
        sums = self._passes.elbo((x, labels), None)
        self._over()
        bound = x.new_zeros(x.shape[0])
        if self._iw_samples:
            weighted = self._passes.weighted
            bound = iw_bound(
                self._model, x, self._iw_samples, chunk, after_pass=self._over, labels=labels, weighted=weighted
            )
        return sums | {"bound": summed(-bound)}

    def _over(self) -> None:
        self._ticks += 1
        if self._left and self._ticks % self._every == 0:
            self._left -= 1
            self._after_pass()


def _of_the_whole(part: Outputs) -> Iterator[str]:
    """The names of what is summed up over units too."""
    return (name for name in part if not name.startswith(UNITS))


def take_statistics(
    model: Model, training: Images, batch_size: int, seed: int, processes: Processes, rounds: Rounds | None = None
) -> None:
    """Give ``model`` the batch norm statistics of the training images, in place of those that trailed the training.

    Args:
        batch_size: images of a batch over all ranks, as in training.
        rounds: a round for each batch.
    """

    def passes() -> Iterator[Callable[[], object]]:
        for j, indices in training.batches(batch_size, processes):
            if j == 0 or len(indices) == batch_size:  # as in training: of 1 image there are no statistics
                seed_everything("batch norm", seed, j)
                batch = training.labelled(indices, processes.device)
                yield partial(model, batch.images, of_classes(posterior_sample, batch.labels))
            if rounds is not None:
                rounds()
        if rounds is not None:
            rounds.rest()

    estimate(model, passes(), processes.sum_)
