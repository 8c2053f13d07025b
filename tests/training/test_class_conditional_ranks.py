"""Two ranks of a class-conditional run compute what one does, in training, evaluation and inference."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small
from of_three_classes import settings, write_dump
from running import checkpoints_of_one_and_two_ranks, scalars
from torch.testing import assert_close

from lvae_torch.synthesis.parts import read_part
from lvae_torch.synthesize import synthesize

REPOSITORY = Path(__file__).resolve().parents[2]
PLAIN = {
    "model__class_embedding": "every_layer", "model__batch_norm": False, "model__dropout": 0.0,
    "model__max_log_std": 1e-6, "train__ema_decay": 0.0,
}  # fmt: skip


@pytest.mark.slow
def test_two_ranks_compute_what_one_does(tmp_path: Path) -> None:
    """Posterior means in place of samples: the same global batch, with its labels, gives the same weights."""
    write_dump(tmp_path / "dumps")
    one, two = checkpoints_of_one_and_two_ranks(tmp_path, small.CFG, **PLAIN)
    for name, tensor in one["model"].items():
        assert_close(tensor, two["model"][name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    assert any(tensor.any() for name, tensor in one["model"].items() if "class_" in name)
    for a, b in zip(scalars(tmp_path, "one"), scalars(tmp_path, "two"), strict=True):
        for key, value in a.items():
            assert value == pytest.approx(b[key], rel=1e-3 if isinstance(value, list) else 1e-4, abs=1e-4), key
    modes, changes = ("generation", "reconstruction"), {**PLAIN, "run__name": "one"}
    folder = tmp_path / "runs" / "one" / "synthesis"
    synthesize(settings(tmp_path, **changes), modes)
    alone = parts_of(folder)
    sets = [part for item in small.override_list(tmp_path, changes) for part in ("--set", item)]
    asked = [part for mode in modes for part in ("--mode", mode)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc_per_node=2"]
    result = subprocess.run(
        [sys.executable, *torchrun, "-m", "lvae_torch.synthesize", str(tmp_path / "small.cfg"), *sets, *asked],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    together = parts_of(folder)
    assert together.keys() == alone.keys() and any("labels" in arrays for arrays in alone.values())
    for name, arrays in together.items():
        for key, array in arrays.items():
            np.testing.assert_array_equal(array, alone[name][key])


def parts_of(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    return {str(path.relative_to(folder)): read_part(path) for path in sorted(folder.rglob("part_*"))}
