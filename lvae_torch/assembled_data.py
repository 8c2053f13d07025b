"""The data of a run, as training, evaluation and synthesis read it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lvae_torch.data.dump import Dump, ImageSplit
from lvae_torch.data.images import Images
from lvae_torch.data.order import TrainingOrder, spread
from lvae_torch.data.transforms import Preprocess
from lvae_torch.distributed.processes import Processes
from lvae_torch.elbo.batch_norm import reestimated
from lvae_torch.hparams import Settings
from lvae_torch.models.sources import posterior_sample
from lvae_torch.seeding import seed_everything


@dataclass(frozen=True)
class Data:
    """A dump, its two splits, and what turns their bytes into x."""

    dump: Dump
    training: ImageSplit
    validation: Images
    order: TrainingOrder
    preprocess: Preprocess

    @classmethod
    def of(cls, settings: Settings, dump: Dump, preprocess: Preprocess) -> "Data":
        """
        Raises:
            DataError: if the dump has no such splits, or too few images for one batch.
        """
        data = settings.data
        training = dump.split(data.train_split, limit=data.limit_train)
        order = TrainingOrder(len(training), settings.train.batch_size, settings.run.seed)
        validation = Images(dump.split(data.val_split), preprocess, data.limit_val)
        return cls(dump, training, validation, order, preprocess)

    def strided(self, n: int, device: torch.device) -> Tensor:
        """``n`` images spread over the validation split, which may be sorted, as x, (n, C, H, W)."""
        return self.validation.at(spread(len(self.validation.split), n), device)

    def validation_batches(self, batch_size: int, processes: Processes) -> tuple[Iterator[tuple[int, Tensor]], int]:
        """(j, x) of this rank's batches, and the most batches that any rank has."""
        images = self.validation
        batches = ((j, images.at(indices, processes.device)) for j, indices in images.batches(batch_size, processes))
        return batches, -(-images.n_batches(batch_size) // processes.world)


@contextmanager
def evaluation_statistics(settings: Settings, model: Any, training: Images, processes: Processes) -> Iterator[None]:
    """Inside, ``model`` has the batch norm statistics that ``[val] batch_norm`` asks for."""
    if settings.val.batch_norm == "running":
        yield
        return

    size = settings.train.batch_size

    def passes() -> Iterator[Callable[[], object]]:
        for j, indices in training.batches(size, processes):
            if j and len(indices) < size:
                continue  # as in training, which has no batch of less, and of 1 image there are no statistics
            seed_everything("batch norm", settings.run.seed, j)
            yield partial(model, training.at(indices, processes.device), posterior_sample)

    with reestimated(model, passes(), processes.sum_):
        yield
