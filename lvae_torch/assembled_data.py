"""The data of a run, as training, evaluation and synthesis read it."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from lvae_torch.data.dump import Dump, ImageSplit
from lvae_torch.data.order import TrainingOrder, evaluation_batches, n_batches, spread
from lvae_torch.data.transforms import Preprocess
from lvae_torch.hparams import Settings
from lvae_torch.processes import Processes


@dataclass(frozen=True)
class Data:
    """A dump, its two splits, and what turns their bytes into x."""

    dump: Dump
    training: ImageSplit
    validation: ImageSplit
    limit_val: int
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
        return cls(dump, training, dump.split(data.val_split), data.limit_val, order, preprocess)

    def strided(self, n: int) -> Tensor:
        """``n`` raw images spread over the validation split, which may be sorted; (n, H, W, C)."""
        return self.validation.gather(spread(len(self.validation), n))

    def validation_batches(self, batch_size: int, processes: Processes) -> tuple[Iterator[tuple[int, Tensor]], int]:
        """This rank's raw batches with their numbers, and the most batches that any rank has."""
        n = len(self.validation)
        batches = evaluation_batches(n, batch_size, processes.rank, processes.world, self.limit_val)
        rounds = -(-n_batches(n, batch_size, self.limit_val) // processes.world)
        return ((j, self.validation.gather(indices)) for j, indices in batches), rounds
