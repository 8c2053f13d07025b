"""Distances between two sets of images by their features: Fréchet, kernel, precision and recall; and the score of one.

All take features (N, F) on disk or in memory, float32, one row an image. The Fréchet distance is ours, because only
means and covariances are in memory; the others are torch-fidelity's.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lvae_torch.distributed.place import float64_device, pytorchs_own_products

CHUNK = 2000  # rows in memory, as float64
SUBSETS, SUBSET_SIZE = 100, 1000  # of the kernel distance (Bińkowski et al. 2018)
NEIGHBOURS = 3  # of precision and recall (Kynkäänniemi et al. 2019)
SPLITS = 10  # of the score (Salimans et al. 2016)
LIBRARY_SEED = 2020  # torch-fidelity's own
ROWS = 1000  # of distances at once


Moments = tuple[Tensor, Tensor]
"""Mean (F,) and covariance (F, F), float64."""


def moments(features: np.ndarray, device: torch.device) -> Moments:
    """Mean and covariance, with n - 1 as the divisor."""
    home, n = float64_device(device), len(features)
    pieces = [slice(first, first + CHUNK) for first in range(0, n, CHUNK)]
    mean = torch.stack([_rows(features, piece, home).sum(dim=0) for piece in pieces]).sum(dim=0) / n
    scatter = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=home)
    for piece in pieces:
        apart = _rows(features, piece, home) - mean
        scatter += apart.T @ apart
    return mean, scatter / max(1, n - 1)


def frechet_distance(one: Moments, other: Moments) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of two Gaussians (Dowson and Landau 1982; Heusel et al. 2017)."""
    (mean, covariance), (mean_other, covariance_other) = one, other
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    # C C' has the eigenvalues of C^(1/2) C' C^(1/2), which is symmetric.
    cross = torch.linalg.eigvalsh(root @ covariance_other @ root).clamp(min=0).sqrt().sum()
    gap = mean - mean_other
    return float(gap @ gap + covariance.trace() + covariance_other.trace() - 2 * cross)


def kernel_distance(features: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Squared maximum mean discrepancy with a cubic kernel: mean over subsets, and their standard deviation."""
    from torch_fidelity.metric_kid import kid_features_to_metric

    size = subset_size(len(features), len(reference))
    pair = torch.from_numpy(features), torch.from_numpy(reference)
    found = kid_features_to_metric(
        *pair, kid_subsets=SUBSETS, kid_subset_size=size, rng_seed=LIBRARY_SEED, verbose=False
    )
    return found["kernel_inception_distance_mean"], found["kernel_inception_distance_std"]


def subset_size(*counts: int) -> int:
    """Images in a subset of the kernel distance."""
    return min(SUBSET_SIZE, *counts)


def precision_and_recall(features: np.ndarray, reference: np.ndarray, device: torch.device) -> tuple[float, float]:
    """Share of the images that lie among the reference's neighbours, and the reverse; NaN for too few images."""
    from torch_fidelity.metric_prc import prc_features_to_metric

    if min(len(features), len(reference)) <= NEIGHBOURS:
        return float("nan"), float("nan")
    pair = torch.from_numpy(features).to(device), torch.from_numpy(reference).to(device)
    with pytorchs_own_products():  # which distances are made of, and TF32 rounds to 10 bits
        found = prc_features_to_metric(
            *pair, prc_neighborhood=NEIGHBOURS, prc_batch_size=ROWS, save_cpu_ram=True, verbose=False
        )
    return found["precision"], found["recall"]


def score(logits: np.ndarray) -> tuple[float, float]:
    """exp of the mutual information of image and class: mean over splits, and their standard deviation."""
    from torch_fidelity.metric_isc import isc_features_to_metric

    found: dict[str, Any] = isc_features_to_metric(
        torch.from_numpy(logits), splits=min(SPLITS, len(logits)), shuffle=True, rng_seed=LIBRARY_SEED
    )
    return found["inception_score_mean"], found["inception_score_std"]


def _rows(features: np.ndarray, piece: slice, home: torch.device) -> Tensor:
    return torch.from_numpy(features[piece]).to(home, torch.float64)
