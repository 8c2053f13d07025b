"""What sample quality computes: distances in closed form, pixels, neighbours and features, all without a run."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lvae_torch.data.transforms import Preprocess
from lvae_torch.synthesis import extractors as loading
from lvae_torch.synthesis import quality
from lvae_torch.synthesis.features import as_pixels
from lvae_torch.synthesis.quality import frechet_distance, moments

pytest.importorskip("torch_fidelity", reason="needs the extra 'metrics'")


def test_the_distance_of_gaussians_has_its_closed_form() -> None:
    """For diagonal covariances it is |m - m'|^2 + sum (s - s')^2; a rank-deficient one is no trouble."""
    rng = np.random.default_rng(0)
    mean, other = rng.normal(size=(2, 6))
    std, std_other = np.array([1.0, 2, 0, 3, 0.5, 1]), np.array([2.0, 1, 1, 0, 0.5, 4])
    gaussians = [(torch.from_numpy(m), torch.from_numpy(np.diag(s**2))) for m, s in ((mean, std), (other, std_other))]
    found = frechet_distance(*gaussians)
    assert found == pytest.approx(((mean - other) ** 2).sum() + ((std - std_other) ** 2).sum(), rel=1e-9)
    values = rng.normal(size=(4100, 5)).astype(np.float32) + 100  # more than one chunk, far from zero
    found_mean, covariance = moments(values, torch.device("cpu"))
    assert found_mean.numpy() == pytest.approx(values.astype(np.float64).mean(axis=0), rel=1e-12)
    assert covariance.numpy() == pytest.approx(np.cov(values.astype(np.float64), rowvar=False), rel=1e-9, abs=1e-12)


def test_pixels_are_the_nearest_levels() -> None:
    x = torch.tensor([0.0, 0.001, 0.5, 0.999, 1.7, float("nan")]).view(6, 1, 1, 1)
    assert as_pixels(x)[:, 0, 0, 0].tolist() == [0, 0, 128, 255, 255, 0]
    assert as_pixels(x).shape == (6, 3, 1, 1)
    assert Preprocess(2, 8, "none", False, False).levels_after == 2


def test_neighbours_are_found_without_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distances are made of products, which ``[train] tf32`` would round to 10 bits."""
    from torch_fidelity import metric_prc

    rng = np.random.default_rng(0)
    features, reference = (rng.normal(size=(n, 5)).astype(np.float32) for n in (30, 40))
    products, were_rounded = torch.backends.cuda.matmul, list[bool]()
    measure = metric_prc.prc_features_to_metric

    def watched(*sets: Tensor, **options: Any) -> dict[str, float]:
        were_rounded.append(products.allow_tf32)
        return measure(*sets, **options)  # type: ignore[no-any-return]

    monkeypatch.setattr(metric_prc, "prc_features_to_metric", watched)
    before, products.allow_tf32 = products.allow_tf32, True
    try:
        found = quality.precision_and_recall(features, reference, torch.device("cpu"))
        assert were_rounded == [False] and products.allow_tf32
    finally:
        products.allow_tf32 = before

    def share_near(points: np.ndarray, centres: np.ndarray) -> float:
        radii = np.sort(np.linalg.norm(centres[:, None] - centres, axis=2))[:, quality.NEIGHBOURS]
        return float((np.linalg.norm(points[:, None] - centres, axis=2) <= radii).any(axis=1).mean())

    assert found == pytest.approx((share_near(features, reference), share_near(reference, features)))


def test_features_do_not_depend_on_how_a_run_multiplies() -> None:
    """Those of a split are kept for all runs, whatever their ``[train] tf32``."""
    convolutions, matrices = torch.backends.cudnn, torch.backends.cuda.matmul
    found = list[tuple[bool, bool]]()

    def network(pixels: Tensor) -> Tensor:
        found.append((convolutions.allow_tf32, matrices.allow_tf32))
        return pixels.float().flatten(1)

    before = convolutions.allow_tf32, matrices.allow_tf32
    try:
        for tf32 in (True, False):
            convolutions.allow_tf32 = matrices.allow_tf32 = tf32
            loading.Extractor(network, "tiny", "", is_inception=False)(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
            assert (convolutions.allow_tf32, matrices.allow_tf32) == (tf32, tf32)
    finally:
        convolutions.allow_tf32, matrices.allow_tf32 = before
    assert found == [(True, False)] * 2
