"""A sweep over seeds: a run of its own for each, rows and points apart, and their mean with its spread."""

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sweeps import cfgs, options, results

from lvae_torch.hparams import load
from lvae_torch.reporting import comparison, figures
from lvae_torch.reporting.comparison import Result, draw_comparison
from lvae_torch.reporting.result_tables import results_table
from lvae_torch.runs.folder import RunFolder
from lvae_torch.sweep import command, together


def test_each_seed_has_a_run_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a folder of its own, and begins with the weights of that seed."""
    arguments = [*map(str, cfgs(tmp_path)), *options(tmp_path), "--seed=42", "--seed=7", "--seed=7", "--jobs=2"]
    arguments += ["--out", str(tmp_path / "table.csv")]
    command(arguments)
    printed = capsys.readouterr()
    for place, seed in ((tmp_path / "runs", 42), (tmp_path / "runs" / "seed_7", 7)):
        for name in "ab":
            kept = load(RunFolder(place, name).hparams_cfg).run
            assert (kept.seed, Path(kept.runs)) == (seed, place)
    begun = [line.split(": -m")[0] for line in printed.err.splitlines() if "lvae_torch.train begins" in line]
    assert sorted(begun[:2]) == ["a (seed 42)", "a (seed 7)"] and sorted(begun[2:]) == ["b (seed 42)", "b (seed 7)"]
    with (tmp_path / "table.csv").open(newline="") as file:
        found = {(row["run"], row["seed of the run"]): float(row["nelbo"]) for row in csv.DictReader(file)}
    of_a = [found["a", seed] for seed in ("42", "7")]
    assert len(set(found.values())) == 4 and len(found) == 4
    row = next(line for line in printed.out.splitlines() if line.startswith("| a, mean of 2 seeds "))
    assert f" {sum(of_a) / 2:.2f} ± {abs(of_a[0] - of_a[1]) / 2**0.5:.2f} " in row
    command([*arguments, "--table", "--with", str(tmp_path / "table.csv"), "--figures", str(tmp_path / "figures")])
    assert capsys.readouterr().out == printed.out, "runs of two seeds are not taken for one"


def test_means_are_of_runs_that_are_alike() -> None:
    """Of one name, step and precision; the bound's if all are with as many samples on as many images."""
    deep = results()[0]

    def other(seed: int, nelbo: float, bound: float, n_images: int = 9, **told: Any) -> Result:
        found = deep.bound | {"nll_bound": bound, "n_images": n_images}
        told_ = deep.settings | {"seed of the run": seed} | told
        return replace(deep, evaluation=deep.evaluation | {"nelbo": nelbo}, bound=found, settings=told_)

    def means(*runs: Result) -> list[list[str]]:
        rows = [[cell.strip() for cell in row.split("|")[1:5]] for row in results_table(runs).splitlines()]
        return [row for row in rows if "mean of" in row[0]]

    three = [other(1, 90.0, 85.0), other(2, 91.0, 86.0), other(3, 95.0, 87.0)]
    bound = "86.00 ± 1.00 (K = 50, 9 images)"
    assert means(*three) == [["set_lvae_2, mean of 3 seeds", "-", "92.00 ± 2.65", bound]]
    assert means(*three[:2], other(3, 95.0, 87.0, precision="float32"))[0][2] == "90.50 ± 0.71"
    assert means(*three[:2], other(3, 95.0, 87.0, n_images=8))[0][2:] == ["92.00 ± 2.65", "-"]
    assert means(three[0], other(2, math.inf, 86.0))[0][2] == "not finite ± not finite"
    assert means(three[0], replace(three[1], name="set_vae_2"), replace(three[1], settings={})) == []


def test_runs_of_several_seeds_are_drawn_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each point, and the line through the means."""
    deep, shallow, _ = results()
    again = replace(deep, evaluation=deep.evaluation | {"nelbo": 92.0}, settings={"seed of the run": 4})
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(comparison, "draw_bars", lambda path, groups, *_: drawn.update(groups))
    monkeypatch.setattr(figures, "label_axes", lambda axes, x, y, title: drawn.update({title: axes.get_lines()}))
    draw_comparison(tmp_path, [deep, shallow, again])
    assert list(drawn)[:2] == ["set_lvae_2 (seed 3)", "set_lvae_2 (seed 4)"]
    points, line = ([list(axis) for axis in line.get_data()] for line in drawn["evaluated, L_1"])
    assert points == [[1, 2, 2], [-90.1, -92.0, -90.1]]
    assert line == [[1, 2], [-90.1, pytest.approx(-91.05)]]


def test_a_table_without_seeds_tells_of_the_same_runs(tmp_path: Path) -> None:
    deep, shallow, _ = results()
    newer = replace(deep, evaluation=deep.evaluation | {"nelbo": 80.0})
    other = replace(newer, settings={"seed of the run": 4})
    assert together([replace(deep, settings={})], [newer]) == [newer]
    assert together([deep, shallow], [other]) == [deep, other, shallow]
