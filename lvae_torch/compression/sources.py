"""Images of a dump's split as levels."""

from dataclasses import dataclass

import numpy as np
import torch

from lvae_torch.data.images import Images


@dataclass(frozen=True)
class SplitLevels:
    """A ``chain.LevelSource`` of what a model sees of a split: after ``[data] binarize`` and ``n_bits``."""

    images: Images

    def __len__(self) -> int:
        return len(self.images.indices)

    @property
    def n_levels(self) -> int:
        return self.images.preprocess.levels_after

    def levels(self, first: int, n: int) -> np.ndarray:
        """Of images first .. first + n - 1, integers (n, C, H, W)."""
        x = self.images.at(self.images.indices[first : first + n], torch.device("cpu"))
        result: np.ndarray = torch.round(x * (self.n_levels - 1)).long().numpy()
        return result
