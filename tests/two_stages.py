"""Settings, data and commands that the tests of two-stage runs share, and what the runs leave."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import small
from running import under_torchrun

from lvae_torch.data.dump import Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.files import read_json
from lvae_torch.hparams import Settings, load_text
from lvae_torch.synthesize import synthesize

COMMON = f"""
[optimizer]
name = adam
learning_rate = 1e-3
{small.BRIEF}"""
IMAGES = f"""
[run]
name = images
device = cpu
[data]
dataset = colours
limit_train = 30
[model]
family = vqvae
width = 8
residual_blocks = 1
n_codes = 6
[loss]
beta = 0
per_dimension = True
{COMMON}
codes_to = codes
"""
CODES = f"""
[run]
name = codes
device = cpu
[data]
dataset = codes
[model]
family = pixelcnn
width = 8
layers = 2
{COMMON}
"""


def settings(folder: Path, cfg: str, **overrides: Any) -> Settings:
    return load_text(cfg, "test.cfg", small.override_list(folder, overrides))


def write_colours(folder: Path) -> None:
    rng = np.random.default_rng(0)
    with DumpWriter(folder / "dumps", "colours", Layout((3, 8, 12), 256), {"source": "made by a test"}) as writer:
        for split, n in (("train", 36), ("test", 17)):
            tiles = rng.integers(0, 256, (n, 2, 3, 3), dtype=np.uint8)
            writer.add(split, tiles.repeat(4, axis=1).repeat(4, axis=2), rng.integers(0, 4, n))


def out(folder: Path, run: str, mode: str) -> Path:
    return folder / "runs" / run / "synthesis" / mode


def results(folder: Path, cfg: str, mode: str, **overrides: Any) -> dict[str, Any]:
    given = settings(folder, cfg, **overrides)
    synthesize(given, [mode])
    read: dict[str, Any] = read_json(out(folder, given.run.name, mode) / "metrics.json")
    return read


def logged(folder: Path, run: str) -> dict[str, float]:
    lines = (folder / "runs" / run / "metrics.jsonl").read_text().splitlines()
    return {key: value for line in lines for key, value in json.loads(line).items()}


def run_ranks(folder: Path, module: str, cfg: str, arguments: Sequence[str]) -> None:
    """A command on a cfg, with two processes."""
    (folder / "ranks.cfg").write_text(cfg)
    sets = [part for item in small.override_list(folder) for part in ("--set", item)]
    under_torchrun(module, str(folder / "ranks.cfg"), *sets, *arguments)
