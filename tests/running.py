"""What tests of whole runs share: looking at what a run left, and stopping it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lvae_torch.distributed.stopping import StopRequest
from lvae_torch.runs.checkpoints import CheckpointStore


def checkpoint(folder: Path, name: str = "small") -> dict[str, Any]:
    return CheckpointStore(folder / "runs" / name / "checkpoints").load("last")


def assert_same_bits(one: Any, other: Any, where: str = "") -> None:
    """Equal tensors, bit for bit, all the way down; the run's name and the program's commit may differ."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            if key not in ("settings", "commit"):
                assert_same_bits(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list):
        for k, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same_bits(a, b, f"{where}/{k}")
    else:
        assert one == other, where


def scalars(folder: Path, name: str) -> list[dict[str, float]]:
    lines = (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
    varying = ("time", "speed/", "crc32")
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(varying)} for line in lines]


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """As if a signal came while that step computes (the first call is step 0)."""
    asked = []

    def agreed(self: StopRequest) -> bool:
        asked.append(1)
        return len(asked) == step + 1

    monkeypatch.setattr(StopRequest, "agreed", agreed)


def under_torchrun(module: str, *arguments: str, ranks: int = 2, **environment: str) -> str:
    """Run a command with so many processes; what it told on standard error."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", f"--nproc_per_node={ranks}"]
    root = str(Path(__file__).resolve().parents[1])
    result = subprocess.run(
        [sys.executable, *torchrun, "-m", module, *arguments],
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stderr
