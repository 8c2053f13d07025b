"""A split as x: what evaluation and inference look at."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lvae_torch.data.dump import ImageSplit
from lvae_torch.data.order import evaluation_batches, n_batches, spread
from lvae_torch.data.transforms import Preprocess
from lvae_torch.distributed.processes import Processes


@dataclass(frozen=True)
class Images:
    """All images of a split, or ``limit`` of them evenly spread, for the files of some test sets are sorted."""

    split: ImageSplit
    preprocess: Preprocess
    limit: int = 0

    @property
    def indices(self) -> np.ndarray:
        """Which images of the split are read."""
        return spread(len(self.split), self.limit)

    def at(self, indices: np.ndarray, device: torch.device) -> Tensor:
        """The images at ``indices`` of the split as x, (b, C, H, W), on the device; the same at each call."""
        raw = self.split.gather(indices).to(device, non_blocking=True)
        return self.preprocess.evaluation(raw, torch.from_numpy(indices).to(device, non_blocking=True))

    def batches(self, size: int, processes: Processes) -> Iterator[tuple[int, np.ndarray]]:
        """(j, indices) of this rank's batches: every image once over all ranks."""
        return evaluation_batches(len(self.split), size, processes.rank, processes.world, self.limit)

    def n_batches(self, size: int) -> int:
        """Batches over all ranks."""
        return n_batches(len(self.split), size, self.limit)
