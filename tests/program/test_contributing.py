"""What CONTRIBUTING.md says of adding things is true: a copy of the program does as it says, and uses what it added."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r'^```\w+ (file|line-in)=(\S+)(?: before="([^\n]*)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)


def blocks() -> Iterator[tuple[str, str, str, str]]:
    """(file or line-in, path, the beginning of the line to insert before, text) of each block, in order."""
    for match in BLOCK.finditer((ROOT / "CONTRIBUTING.md").read_text()):
        yield match[1], match[2], match[3] or "", match[4]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with everything that CONTRIBUTING adds."""
    folder = tmp_path_factory.mktemp("contributed")
    for name in ("lvae_torch", "data_scripts", "egs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "pretrained"))
    for kind, path, before, text in blocks():
        place = folder / path
        if kind == "file":
            assert not place.exists(), f"{path} is there already"
            place.parent.mkdir(exist_ok=True)
            place.write_text(text)
        else:
            lines = place.read_text().splitlines(keepends=True)
            found = [i for i, line in enumerate(lines) if line.strip().strip('"').startswith(before.strip().strip('"'))]
            assert found, f"{path}: no line begins with {before!r}"
            place.write_text("".join([*lines[: found[0]], text, *lines[found[0] :]]))
    return folder


def run(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-W", "error", *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=250)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_each_addition_is_as_small_as_its_title_says() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    sections = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    counts = {
        section.split(":")[0]: [(m[1], m[2]) for m in BLOCK.finditer(section)] for section in sections if ":" in section
    }
    mode, tracker, dataset, likelihood, optimizer, family = counts.values()
    for small in (mode, tracker):
        assert [kind for kind, _ in small] == ["file", "line-in"]
    assert [kind for kind, _ in dataset].count("file") == 1 and {p for k, p in dataset if k == "line-in"} == {
        "data_scripts/recipes.py"
    }
    assert {path for _, path in likelihood} == {
        "lvae_torch/distributions/laplace.py", "lvae_torch/models/likelihoods/heads.py"
    }  # fmt: skip
    assert {Path(path).parent.name for _, path in optimizer} == {"training"}
    assert {Path(path).parent.name for kind, path in family if kind == "file"} == {"linear_vae", "egs"}


def test_what_was_added_is_used(copy: Path) -> None:
    """The dataset is made; the family is trained on it with the likelihood, optimizer and option; the mode runs."""
    assert str(copy) in run(copy, "-c", "import lvae_torch; print(lvae_torch.__file__)")
    run(copy, "-m", "data_scripts", "checkerboards")
    sets = {
        "model.likelihood": "laplace", "optimizer.name": "adam", "optimizer.amsgrad": "True", "run.device": "cpu",
        "optimizer.learning_rate": "2e-2", "val.images": "4", "train.steps": "60",
        "run.trackers": "['tensorboard', 'csv_file']",
    }  # fmt: skip
    run(copy, "-m", "lvae_torch.train", "egs/linear_vae.cfg", *(f"--set={k}={v}" for k, v in sets.items()))
    run(copy, "-m", "lvae_torch.synthesize", "linear_vae", "--mode", "mean_image", "--mode", "reconstruction")
    results = copy / "runs" / "linear_vae" / "synthesis"
    assert json.loads((results / "mean_image" / "metrics.json").read_text())["mean_of_pixels"] == pytest.approx(0.5)
    assert (results / "mean_image" / "mean.png").is_file()
    metrics = json.loads((results / "reconstruction" / "metrics.json").read_text())
    assert metrics["nelbo"] < 64, "a width of 1/2 at the location 1/2 everywhere costs 64 nats"
    lines = [json.loads(line) for line in (copy / "runs/linear_vae/metrics.jsonl").read_text().splitlines()]
    rows = list(csv.reader((copy / "runs/linear_vae/numbers.csv").read_text().splitlines()))
    ours = {(r["step"], k): v for r in lines for k, v in r.items() if isinstance(v, float) and k != "time"}
    assert {(int(step), name): float(value) for step, name, value in rows} == ours, "the tracker heard every number"
    settings = (copy / "runs" / "linear_vae" / "hparams.cfg").read_text()
    assert "amsgrad = True" in settings and "likelihood = 'laplace'" in settings


def test_the_other_names_are_known_too(copy: Path) -> None:
    told = run(copy, "-c", (
        "from lvae_torch.training.section import OptimizerSection as S; from lvae_torch.training.optimization import *;"
        "import torch; v = torch.nn.Parameter(torch.ones(3)); v.grad = torch.ones(3);"
        "print(type(new_optimizer(S(name='nadam').name, v)).__name__)"
    ))  # fmt: skip
    assert told.strip() == "NAdam"
    assert "mean_image" in run(copy, "-m", "lvae_torch", "synthesize", "--help")
