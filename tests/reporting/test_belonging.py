"""Results stand beside a run's own numbers only if they are of its weights and its data."""

from typing import Any

import pytest

from lvae_torch.reporting.belonging import conditions, is_own, measured_on

OWN = {"step": 7, "weights": "ema", "split": "test"}
FOUND: dict[str, Any] = {
    "step": 7, "weights": "ema", "trained_on": "mnist 4c6799090227", "dataset": "mnist", "content": "4c6799090227",
    "split": "test", "n_images": 2000, "precision": "float32",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"step": 6}, "test, 2,000 images, step 6, averaged weights"),
        ({"weights": "raw"}, "test, 2,000 images, step 7, raw weights"),
        ({"split": "train"}, "train, 2,000 images, step 7, averaged weights"),
        ({"dataset": "other"}, "other, test, 2,000 images, step 7, averaged weights"),
        ({"content": "0123"}, "mnist of other content (0123), test, 2,000 images, step 7, averaged weights"),
        ({"keep_fraction": 0.03}, "test, 2,000 images, step 7, averaged weights, keep_fraction 0.03"),
    ],
)
def test_what_differs_is_told_and_is_not_the_runs_own(changed: dict[str, Any], told: str) -> None:
    assert not is_own(FOUND | changed, OWN)
    assert measured_on(FOUND | changed) == told


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, "test, 2,000 images, step 7, averaged weights"),
        ({"n_images": 10}, "test, 10 images, step 7, averaged weights"),
        ({"precision": "bfloat16"}, "test, 2,000 images, bfloat16, step 7, averaged weights"),
        ({"keep_fraction": None}, "test, 2,000 images, step 7, averaged weights"),
        ({"trained_on": "mnist unknown"}, "test, 2,000 images, step 7, averaged weights"),
    ],
)
def test_what_is_the_runs_own_is_told_with_its_conditions(changed: dict[str, Any], told: str) -> None:
    found = FOUND | changed
    assert is_own(found, OWN) and is_own(found, {}) and measured_on(found) == told
    assert ", ".join(conditions(found)) in told


def test_an_older_step_is_not_the_runs_own_where_nothing_was_evaluated() -> None:
    assert not is_own(FOUND, {"step": None}) and is_own({}, {"step": None})
