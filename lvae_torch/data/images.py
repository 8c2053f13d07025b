"""A split as model input x, for evaluation and inference."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lvae_torch.data.dump import ImageSplit
from lvae_torch.data.labelled import Labelled
from lvae_torch.data.order import evaluation_batches, n_batches, spread
from lvae_torch.data.transforms import Preprocess
from lvae_torch.distributed.processes import Processes


@dataclass(frozen=True)
class Images:
    """All images of a split, or ``limit`` of them spread evenly, because some test sets are sorted by class."""

    split: ImageSplit
    preprocess: Preprocess
    limit: int = 0

    @property
    def indices(self) -> np.ndarray:
        """Indices of the images that are read from the split."""
        return spread(len(self.split), self.limit)

    def at(self, indices: np.ndarray, device: torch.device) -> Tensor:
        """The images at ``indices`` as x, (b, C, H, W), on the device; every call gives the same values."""
        raw = self.split.gather(indices).to(device, non_blocking=True)
        return self.preprocess.evaluation(raw, torch.from_numpy(indices).to(device, non_blocking=True))

    def labels_at(self, indices: np.ndarray, device: torch.device) -> Tensor | None:
        """The classes of the images, int64 (b,), on the device; None for an unconditional model."""
        labels = self.split.labels_of(indices)
        return None if labels is None else labels.to(device, non_blocking=True)

    def labelled(self, indices: np.ndarray, device: torch.device) -> Labelled:
        """The images and their classes."""
        return Labelled(self.at(indices, device), self.labels_at(indices, device))

    def batches(self, size: int, processes: Processes) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (j, indices) of this rank's batches; together the ranks read every image once."""
        return evaluation_batches(len(self.split), size, processes.rank, processes.world, self.limit)

    def n_batches(self, size: int) -> int:
        """Number of batches, over all ranks."""
        return n_batches(len(self.split), size, self.limit)
