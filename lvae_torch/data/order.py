"""The images that each step sees: a pure function of seed and step, divided among the ranks."""

from collections.abc import Iterator

import numpy as np

from lvae_torch.errors import DataError


class TrainingOrder:
    """Epochs of whole batches, each in a new random order; an epoch leaves out an incomplete last batch.

    Raises:
        DataError: if there are fewer images than one batch needs.
    """

    def __init__(self, n_images: int, batch_size: int, seed: int) -> None:
        if n_images < batch_size:
            raise DataError(
                f"the training split has {n_images} images, fewer than [train] batch_size = {batch_size}; lower it."
            )
        self.n_images = n_images
        self.batch_size = batch_size
        self.seed = seed
        self._cached: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    @property
    def steps_per_epoch(self) -> int:
        return self.n_images // self.batch_size

    def batch(self, step: int) -> np.ndarray:
        """Indices of the images in the global batch of ``step``, (batch_size,)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return self._epoch(epoch)[position * self.batch_size : (position + 1) * self.batch_size]

    def _epoch(self, epoch: int) -> np.ndarray:
        if self._cached[0] != epoch:
            self._cached = epoch, self._permutation(epoch)
        return self._cached[1]

    def _permutation(self, epoch: int) -> np.ndarray:
        # NumPy takes no negative seeds; the remainder changes only those.
        return np.random.default_rng([self.seed % 2**63, epoch]).permutation(self.n_images)


def share(indices: np.ndarray, rank: int, world: int) -> np.ndarray:
    """This rank's equal part of a global batch."""
    assert len(indices) % world == 0, (len(indices), world)
    return indices[rank::world]


def evaluation_batches(
    n_images: int, batch_size: int, rank: int, world: int, limit: int = 0
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (j, indices) of this rank's batches; together any number of ranks read every image exactly once.

    ``limit`` > 0 takes that many images spread evenly, because some test sets are sorted by class.
    """
    chosen = spread(n_images, limit)
    for j in range(rank, n_batches(n_images, batch_size, limit), world):
        yield j, chosen[j * batch_size : (j + 1) * batch_size]


def n_batches(n_images: int, batch_size: int, limit: int = 0) -> int:
    """Number of batches in an evaluation, over all ranks."""
    return -(-(min(n_images, limit) if limit else n_images) // batch_size)


def spread(n_images: int, limit: int) -> np.ndarray:
    """All indices, or ``limit`` of them at equal distances; 0 for all."""
    if not limit or limit >= n_images:
        return np.arange(n_images)
    return np.linspace(0, n_images - 1, limit).round().astype(np.int64)
