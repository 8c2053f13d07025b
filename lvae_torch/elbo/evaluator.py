"""The evaluations of a run while it trains: heard by signals, told of as they go, taken up again when interrupted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from lvae_torch.data.images import Images
from lvae_torch.data.run_data import RunData
from lvae_torch.distributed.processes import Processes
from lvae_torch.distributed.stopping import StopRequest
from lvae_torch.elbo.batch_norm import has_statistics, kept_statistics
from lvae_torch.elbo.evaluation import Evaluation, Sums, evaluate, n_passes, take_statistics
from lvae_torch.elbo.section import ValSection
from lvae_torch.errors import Preempted
from lvae_torch.models.contract import Model

CHUNK = 100
"""Images times samples of the bound in one pass, where nobody says more."""
TellPhase = Callable[[str, int, int], object]
"""Told what is being done, how many images of it, and of how many."""


def silent(phase: str, done: int, total: int) -> None:
    """Nobody listens."""


def told_to(*listeners: TellPhase) -> TellPhase:
    """Tells all of them."""

    def tell(phase: str, done: int, total: int) -> None:
        for listener in listeners:
            listener(phase, done, total)

    return tell


@dataclass
class Evaluator:
    """Evaluates the model of a run on its validation split."""

    section: ValSection
    model: Model
    data: RunData
    processes: Processes
    stop: StopRequest
    seed: int
    tell: TellPhase = silent
    is_graphed: bool = False
    """Whether to replay passes as CUDA graphs."""
    is_averaged: bool = False
    """Whether the model has averaged weights."""
    chunk: int = 0
    """Images times samples of the bound in one pass; 0 for those of a batch, up to 100."""
    unfinished: Mapping[str, Any] | None = None
    """What the evaluation that was stopped last had come to; checkpoints keep it, and the same evaluation goes on."""

    def __call__(self, is_last: bool, of: str) -> Evaluation:
        """The likelihood of the split; the importance-weighted bound only where this is the last one.

        Args:
            of: which weights these are, such as "step 20".
        Raises:
            Preempted: after a signal; then ``unfinished`` is what there is so far.
        """
        was_training = self.model.training
        self.model.eval()
        self.processes.broadcast_(self.model.buffers())  # running statistics are each rank's own
        try:
            with self._statistics():
                return self._evaluated(self.section.iw_samples if is_last else 0, of)
        finally:
            self.model.train(was_training)

    def _evaluated(self, iw_samples: int, of: str) -> Evaluation:
        images, size, own = self.data.validation, self.section.batch_size, self.processes
        sums, identity = Sums(self.model, own.device), self._identity(iw_samples, of)
        done = [0] * own.world
        if self.unfinished is not None and self.unfinished["identity"] == identity:
            sums.take(self.unfinished, own.rank)
            done = list(self.unfinished["n_batches"])
        n_images, first = len(images.indices), sum(done) * size
        n_rounds = self._n_rounds(images, iw_samples, done)

        def tell(round_: int, rounds: int) -> None:
            self.tell("evaluating", min(n_images, first + (n_images - first) * round_ // rounds), n_images)

        self.tell("evaluating", first, n_images)
        rounds = self.stop.rounds(n_rounds, tell)
        left = (batch for k, batch in enumerate(images.batches(size, own)) if k >= done[own.rank])
        batches = ((j, images.labelled(indices, own.device)) for j, indices in left)
        self.unfinished = None
        try:
            return evaluate(
                *(self.model, rounds.after(batches), own, self.seed, iw_samples, self._chunk),
                after_pass=rounds,
                sums=sums,
                as_published=self.section.as_published,
                is_graphed=self.is_graphed,
            )
        except Preempted:
            if (state := sums.of_all_ranks(own)) is not None:
                self.unfinished = {"identity": identity, **state}
            raise

    def _n_rounds(self, images: Images, iw_samples: int, done: Sequence[int]) -> int:
        """Passes that the rank with most of them has to do."""
        size, n_images = self.section.batch_size, len(images.indices)
        sizes = [min(size, n_images - first) for first in range(0, n_images, size)]
        passes = [n_passes(n, iw_samples, self._chunk) for n in sizes]
        return max(sum(passes[rank :: len(done)][n:]) for rank, n in enumerate(done))

    @property
    def _chunk(self) -> int:
        return self.chunk or min(self.section.batch_size, CHUNK)

    def _identity(self, iw_samples: int, of: str) -> dict[str, Any]:
        """What two evaluations have in common if one can go on with the other's sums."""
        images = self.data.validation
        known = {"of": of, "iw_samples": iw_samples, "world": self.processes.world, "seed": self.seed}
        known |= {key: getattr(self.section, key) for key in ("batch_size", "batch_norm", "as_published")}
        known |= {"is_averaged": self.is_averaged, "training_batch": self.data.order.batch_size}
        return known | {"split": images.split.name, "limit": images.limit, "data": self.data.dump.content_hash}

    @contextmanager
    def _statistics(self) -> Iterator[None]:
        """Inside, the model has the batch norm statistics that ``[val] batch_norm`` asks for."""
        if self.section.batch_norm == "running" or not has_statistics(self.model):
            yield
            return
        training, batch, own = self.data.training, self.data.order.batch_size, self.processes
        tell = partial(self.tell, "re-estimating batch norm")
        rounds = self.stop.rounds(-(-training.n_batches(batch) // own.world), tell)
        with kept_statistics(self.model):
            take_statistics(self.model, training, batch, self.seed, own, rounds)
            yield
