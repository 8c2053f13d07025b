"""The images that each step sees: a pure function of seed and step, divided among the ranks."""

from collections.abc import Iterator, Sequence

import numpy as np

from lvae_torch.errors import DataError


class TrainingOrder:
    """Epochs of whole batches, each in a new random order; an epoch leaves out an incomplete last batch.

    Args:
        anchor: a step, and the epoch and the image in it where this order goes on from one of another batch size.
    Raises:
        DataError: if there are fewer images than one batch needs.
    """

    def __init__(self, n_images: int, batch_size: int, seed: int, anchor: Sequence[int] = (0, 0, 0)) -> None:
        if n_images < batch_size:
            raise DataError(
                f"the training split has {n_images} images, fewer than [train] batch_size = {batch_size}; lower it."
            )
        self.n_images = n_images
        self.batch_size = batch_size
        self.seed = seed
        self.anchor = anchor
        self._cached: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    @property
    def steps_per_epoch(self) -> int:
        return self.n_images // self.batch_size

    def batch(self, step: int) -> np.ndarray:
        """Indices of the images in the global batch of ``step``, (batch_size,)."""
        epoch, first = self.place(step)
        return self._epoch(epoch)[first : first + self.batch_size]

    def place(self, step: int) -> tuple[int, int]:
        """The epoch of ``step``, and its first image in the order of that epoch."""
        since, epoch, first = self.anchor
        left = (self.n_images - first) // self.batch_size  # whole batches of the epoch that was under way
        if step - since < left:
            return epoch, first + (step - since) * self.batch_size
        later, position = divmod(step - since - left, self.steps_per_epoch)
        return epoch + 1 + later, position * self.batch_size

    @property
    def origin(self) -> int:
        """The step at which epoch 0 would have begun, had all steps had this batch size."""
        since, epoch, first = self.anchor
        return since + (self.n_images - first) // self.batch_size - (epoch + 1) * self.steps_per_epoch

    def with_batch(self, batch_size: int, step: int) -> "TrainingOrder":
        """The order that goes on at ``step`` with another batch size: no image is repeated or jumped over.

        An epoch without a whole batch of the old size left is over.
        """
        return TrainingOrder(self.n_images, batch_size, self.seed, (step, *self.place(step)))

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
