"""What tests of whole runs share: starting them as processes, looking at what a run left, and stopping it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import small
import torch

from lvae_torch.distributed.stopping import StopRequest
from lvae_torch.files import read_json
from lvae_torch.runs.checkpoints import CheckpointStore
from lvae_torch.synthesize import synthesize

REPOSITORY = Path(__file__).resolve().parents[1]


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
    result = subprocess.run(
        [sys.executable, *torchrun, "-m", module, *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stderr


def command(folder: Path, *, ranks: int = 1, name: str = "small", **overrides: Any) -> list[str]:
    """The command line of a training run, alone or under torchrun."""
    (folder / "small.cfg").write_text(small.CFG)
    sets = [part for item in small.override_list(folder, {"run__name": name, **overrides}) for part in ("--set", item)]
    launcher = [sys.executable]
    if ranks > 1:
        launcher += [
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--local-addr=127.0.0.1",
            f"--nproc_per_node={ranks}",
        ]
    return [*launcher, "-m", "lvae_torch.train", str(folder / "small.cfg"), *sets]


def run(arguments: list[str], **keywords: Any) -> "subprocess.CompletedProcess[str]":
    """A process with one thread, to its end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=200, **keywords)


def checkpoints_of_one_and_two_ranks(folder: Path, cfg: str, **overrides: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The checkpoints of runs "one" and "two", trained on one rank and on two: posterior means in place of samples."""
    script = (
        "import lvae_torch.training.step as s, lvae_torch.elbo.evaluation as e\n"
        "from lvae_torch.models.sources import posterior_mean\n"
        "s.posterior_sample = e.posterior_sample = posterior_mean\n"
        "from lvae_torch.cli import main\nfrom lvae_torch.train import command\nmain(command)\n"
    )
    (folder / "means.py").write_text(script)
    for name, ranks in (("one", 1), ("two", 2)):
        line = command(folder, ranks=ranks, name=name, **overrides)
        (folder / "small.cfg").write_text(cfg)
        at = line.index("lvae_torch.train")
        result = run([*line[: at - 1], str(folder / "means.py"), *line[at + 1 :]])
        assert result.returncode == 0, result.stderr
    return checkpoint(folder, "one"), checkpoint(folder, "two")


def results(folder: Path, mode: str, **overrides: Any) -> dict[str, Any]:
    """What ``metrics.json`` says after the mode ran."""
    synthesize(small.settings(folder, **overrides), [mode])
    read: dict[str, Any] = read_json(out(folder, mode) / "metrics.json")
    return read


def out(folder: Path, mode: str) -> Path:
    return folder / "runs" / "small" / "synthesis" / mode
