"""Whether a run fits on cards of a size, and with which smallest change of its settings if it does not: estimates."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lvae_torch.distributed.memory import GIB
from lvae_torch.elbo.section import LossSection, ValSection
from lvae_torch.models.contract import Model
from lvae_torch.training.costs import Switches
from lvae_torch.training.memory import AtOnce, Needs, needs_without_data
from lvae_torch.training.section import TrainSection

CONTEXT = GIB
"""Bytes of a card for CUDA itself, kernels, NCCL, and workspaces of cuBLAS and cuDNN: a round guess, never measured."""
SPARE = 1.05
"""What PyTorch's allocator takes from a card, over what a run needs: its blocks do not all fit one another."""

SMALLER: tuple[Mapping[str, Any], ...] = (
    {},
    {"activation_checkpointing": True},
    {"activation_checkpointing": True, "precision": "bfloat16"},
)
"""Keys of [train] that save memory, with ever more of it; each alone first, then with ever more parts of a batch."""


@dataclass(frozen=True)
class Fit:
    """How a run fits on each card."""

    changes: Mapping[str, object]
    """SECTION.KEY -> the value to set; none where the run fits as it is."""
    training: int
    """Bytes while it trains; with those of ``evaluation``, which comes beside it, and of CUDA they are the whole."""
    evaluation: int
    whole: int


@dataclass
class Cards:
    """So many cards for one run: each has the weights, and a share of each batch."""

    build: Callable[[], Model]
    train: TrainSection
    val: ValSection
    loss: LossSection
    n_cards: int = 1
    drawn: int = 32
    """Images that synthesis draws at once."""
    _needs: dict[Switches, Needs] = field(default_factory=dict)

    @property
    def share(self) -> int:
        """Images of a batch on each card; 0 where a batch cannot be shared evenly."""
        share, rest = divmod(self.train.batch_size, self.n_cards)
        return 0 if rest else share

    def needs(self, train: TrainSection | None = None) -> Needs:
        """What one card needs with the switches of ``train``; each choice of them is counted once."""
        train = train or self.train
        switches = train.activation_checkpointing, train.precision
        if switches not in self._needs:
            at_once = AtOnce.of(train, self.val, self.drawn, self.n_cards)
            self._needs[switches] = needs_without_data(self.build, train, self.loss, at_once, of_card=True)
        return self._needs[switches]

    def as_it_is(self) -> Fit:
        """What the settings as they are take on each card."""
        return self._with({}, self.val.batch_size)

    def fit(self, n_bytes: int) -> Fit | None:
        """The smallest change with which the run fits on cards of ``n_bytes``; None if there is none.

        An evaluation in smaller batches changes nothing; accumulated gradients are the same batch; checkpointing takes
        a third more time; bfloat16 changes numbers. They are tried in this order.
        """
        for changes in self._changes():
            part = self.train.batch_size // int(changes.get("accumulate", self.train.accumulate))
            at_once = min(self.val.batch_size, part)  # [val] follows where it is not set
            for n in _halved(at_once):
                fit = self._with(changes, n, is_val_changed=n < at_once)
                if fit.whole <= n_bytes:
                    return fit
        return None

    def _changes(self) -> Iterator[dict[str, Any]]:
        """Changes of [train], the smallest ones first."""
        yield {}
        divisors = [d for d in range(1, self.share + 1) if self.share % d == 0]
        for switches in SMALLER:
            if any(getattr(self.train, key) != value for key, value in switches.items()):
                yield dict(switches)
            yield from ({**switches, "accumulate": d} for d in divisors if d > self.train.accumulate)

    def _with(self, changes: Mapping[str, Any], n_evaluated: int, is_val_changed: bool = False) -> Fit:
        train = self.train.model_copy(update=dict(changes))
        found = self.needs(train)
        training = found.training.kept(self.share // train.accumulate)
        evaluation = found.evaluation.of_pass(n_evaluated)
        keys = {f"train.{key}": value for key, value in changes.items()}
        keys |= {"val.batch_size": n_evaluated} if is_val_changed else {}
        return Fit(keys, training, evaluation, CONTEXT + round(SPARE * (training + evaluation)))


def _halved(n: int) -> Iterator[int]:
    while n:
        yield n
        n //= 2
