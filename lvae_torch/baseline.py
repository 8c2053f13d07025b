"""The simplest model there is, to hold every likelihood against: independent pixels with the training set's means."""

import numpy as np

from lvae_torch.data.dump import ImageSplit

PART = 5000  # images in memory at once


def per_pixel_mean_nll(training: ImageSplit, test: ImageSplit) -> float:
    """-log p of ``test`` under one Bernoulli per sub-pixel of binary images, nats per image.

    Probabilities are the training means, kept half an image's weight away from 0 and 1.
    """
    n = len(training)
    p = np.clip(_sums(training) / n, 0.5 / n, 1 - 0.5 / n)
    ones = _sums(test) / len(test)
    return float(-(ones * np.log(p) + (1 - ones) * np.log1p(-p)).sum())


def _sums(split: ImageSplit) -> np.ndarray:
    """How often each sub-pixel is on, (H, W, C)."""
    starts = range(0, len(split), PART)
    parts = (split.gather(np.arange(first, min(first + PART, len(split)))).numpy() for first in starts)
    return np.sum([part.sum(axis=0, dtype=np.int64) for part in parts], axis=0)
