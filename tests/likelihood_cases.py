"""Pixels and likelihoods that the tests of the likelihoods share."""

import itertools

import pytest
import torch
from torch import Tensor

from lvae_torch.distributions import DiscretizedLogistic, LogisticMixture

some_levels = pytest.mark.parametrize("n_levels", [2, 3, 8, 32, 256])


def levels(n_levels: int) -> Tensor:
    """All values of a sub-pixel, (n_levels, 1, 1, 1)."""
    return (torch.arange(n_levels).double() / (n_levels - 1)).reshape(-1, 1, 1, 1)


def pixels(channels: int, n_levels: int) -> Tensor:
    """All values of a pixel, (n_levels ** channels, channels, 1, 1)."""
    values = list(itertools.product(levels(n_levels).flatten().tolist(), repeat=channels))
    return torch.tensor(values, dtype=torch.float64)[..., None, None]


def logistics(n_levels: int = 256, seed: int = 0) -> DiscretizedLogistic:
    """300 sub-pixels, (1, 300, 1, 1): locations also outside, scales from the narrowest to ten times the range."""
    g = torch.Generator().manual_seed(seed)
    location = 0.5 + torch.randn(1, 300, 1, 1, generator=g, dtype=torch.float64)
    return DiscretizedLogistic(location, 9.5 * torch.rand(location.shape, generator=g).double() - 7, n_levels)


def mixture(channels: int, n_mixtures: int, n_levels: int = 256, seed: int = 0) -> LogisticMixture:
    """One pixel with components in and beyond the range."""
    g = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(1, *size, n_mixtures, 1, 1, generator=g, dtype=torch.float64)

    coefficients = normal(channels * (channels - 1) // 2).tanh()
    return LogisticMixture(normal(), normal(channels), normal(channels) - 2, coefficients, n_levels)


def repeated(likelihood: LogisticMixture, n: int, channels: int | None = None) -> LogisticMixture:
    """``likelihood`` for a batch of n, of its first ``channels`` colours only."""
    channels = likelihood.means.shape[1] if channels is None else channels
    return LogisticMixture(
        likelihood.mix_logits.expand(n, -1, -1, -1),
        likelihood.means[:, :channels].expand(n, -1, -1, -1, -1),
        likelihood.log_scales[:, :channels].expand(n, -1, -1, -1, -1),
        likelihood.coefficients[:, : channels * (channels - 1) // 2].expand(n, -1, -1, -1, -1),
        likelihood.n_levels,
        likelihood.reference,
    )
