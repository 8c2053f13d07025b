"""TensorBoard's pictures take a bounded share of the disk, spread over the run."""

from pathlib import Path

import numpy as np
import pytest

from lvae_torch.reporting.trackers import tensorboard
from lvae_torch.reporting.trackers.tensorboard import TensorBoardReporter, reduced


def noise(side: int, seed: int = 0) -> np.ndarray:
    """A picture that no compression makes smaller."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_large_pictures_are_reduced_to_means() -> None:
    grid = np.zeros((3200, 40, 3), dtype=np.uint8)
    grid[::3] = 90
    small = reduced(grid)
    assert small.shape == (1066, 13, 3) and (small == 30).all()
    assert reduced(noise(1536)).shape == (1536, 1536, 3)


def test_pictures_are_bounded_and_spread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """200 evaluations with 27 KB of pictures each, into 600 KB; a restart in the middle changes nothing of that."""
    monkeypatch.setattr(tensorboard, "MOST_BYTES", 600_000)
    monkeypatch.setattr(tensorboard, "FIRST_BYTES", 60_000)
    steps = []
    for start, end in ((0, 100), (100, 200)):
        reporter = TensorBoardReporter(tmp_path, start, total_steps=200)
        for step in range(start + 1, end + 1):
            before = reporter._written
            reporter.image(step, "samples", noise(95, step))
            if reporter._written > before:
                steps.append(step)
    n_bytes = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert 0.8 * 600_000 < n_bytes <= 1.05 * 600_000
    assert steps[0] == 1 and steps[-1] > 185 and 18 <= len(steps) <= 23
    assert max(np.diff(steps)) <= 30, "they are spread over the run"
    assert capsys.readouterr().err.count("pictures are left out where they would take more") == 2, "once a start"
