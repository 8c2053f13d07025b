"""Several runs, one after the other or side by side, and their table."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import small
from sweeps import cfgs, options, results

from lvae_torch.errors import CfgError, DataError
from lvae_torch.files import read_json
from lvae_torch.reporting import comparison
from lvae_torch.reporting.comparison import Result, draw_comparison
from lvae_torch.reporting.result_tables import read_results, results_csv, results_table
from lvae_torch.runs.folder import RunFolder
from lvae_torch.sweep import _give_up_if_unfounded, _look_after, command, freest, plan, together


def test_runs_are_trained_used_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*map(str, cfgs(tmp_path)), *options(tmp_path), "--mode=likelihood", "--jobs=2"]
    arguments += ["--out", str(tmp_path / "table.md")]
    command(arguments)
    printed = capsys.readouterr()
    rows = (tmp_path / "table.md").read_text().splitlines()
    assert printed.out.strip().splitlines() == rows
    assert [row.split()[1] for row in rows[2:]] == ["b", "a"]
    for name in "ab":
        folder = RunFolder(tmp_path / "runs", name)
        result = Result.of(folder)
        bound = read_json(folder.synthesis("likelihood") / "metrics.json")
        row = next(row for row in rows if row.startswith(f"| {name} "))
        assert f"{bound['nll_bound']:.2f} (K = 3, 17 images)" in row
        assert f"{result.evaluation['nelbo']:.2f}" in row
        assert len(result.per_layer("kl")) == 2
        assert (folder.path / "output.log").read_text().count("finished") == 1
    command([*arguments, "--set=run.seed=99", "--table", "--out", str(tmp_path / "table.csv")])
    with (tmp_path / "table.csv").open(newline="") as file:
        numbers = {row["run"]: row for row in csv.DictReader(file)}
    for name, row in numbers.items():
        result = Result.of(RunFolder(tmp_path / "runs", name))
        assert (
            float(row["nelbo"]) == result.evaluation["nelbo"] and float(row["nll_bound"]) == result.bound["nll_bound"]
        )
        assert [float(row["kl of z_2"]), float(row["kl of z_1"])] == result.per_layer("kl")
        assert (row["seed of the run"], row["precision"]) == ("42", "float32"), "those that it was trained with"
    assert list(numbers) == ["b", "a"]
    began = [line.split(":")[0] for line in printed.err.splitlines() if "lvae_torch.train begins" in line]
    assert began == ["a", "b"], "b needs the weights of a"


def test_the_table_alone_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command([*map(str, cfgs(tmp_path)), *options(tmp_path), "--table"])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [[cell.strip() for cell in row.split("|")[2:-1]] for row in rows] == [["-"] * 5] * 2
    assert not (tmp_path / "runs").exists()


def test_a_failing_run_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = cfgs(tmp_path)
    paths[0].write_text(paths[0].read_text().replace("dataset = small", "dataset = missing"))
    with pytest.raises(SystemExit) as ended:
        command([*map(str, paths), *options(tmp_path)])
    told = capsys.readouterr().err
    assert ended.value.code == 3, "as the run that failed"
    assert "b: failed with status 3" in told and "not finished: b; see output.log" in told
    assert "missing: no dump of that name" in (tmp_path / "runs" / "b" / "output.log").read_text()
    assert read_json(tmp_path / "runs" / "a" / "status.json")["state"] == "finished"


def test_all_problems_are_told_before_any_work(tmp_path: Path) -> None:
    first, second = cfgs(tmp_path)
    third = tmp_path / "c.cfg"
    third.write_text(second.read_text())
    first.write_text(first.read_text() + "columms = 3\n")
    with pytest.raises(CfgError, match=r"(?s)Did you mean 'columns'.*a: two of the cfgs"):
        plan([first, second, third], [], [])
    with pytest.raises(CfgError, match="--jobs is 0"):
        command([str(second), "--jobs=0"])


def test_a_signal_stops_all_and_the_same_command_continues(tmp_path: Path, repository: Path) -> None:
    paths = cfgs(tmp_path)
    arguments = [sys.executable, "-m", "lvae_torch.sweep", str(paths[1]), *options(tmp_path)]
    log = tmp_path / "runs" / "a" / "metrics.jsonl"
    process = subprocess.Popen([*arguments, "--set=train.steps=100000"], cwd=repository, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 200
    while not log.exists() and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=200) == 75
    status = read_json(tmp_path / "runs" / "a" / "status.json")
    assert status["state"] == "preempted"
    more = status["step"] + 3
    again = subprocess.run([*arguments, f"--set=train.steps={more}"], cwd=repository, capture_output=True, timeout=200)
    assert again.returncode == 0, again.stderr
    assert read_json(tmp_path / "runs" / "a" / "status.json")["step"] == more


def test_results_of_unknown_runs_are_dashes(tmp_path: Path) -> None:
    assert results_table([Result.of(RunFolder(tmp_path, "x"))]).splitlines()[-1].count("-") >= 5


def test_several_runs_are_drawn_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound of other weights than those that were evaluated is left out, in the table and in the figure."""
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(comparison, "draw_panels", lambda path, panels, *_: drawn.update(panels))
    monkeypatch.setattr(comparison, "draw_bars", lambda path, groups, labels, *_: drawn.update(bars=(groups, labels)))
    curve = (np.array([1, 2]), np.array([99.0, 90.0]))
    results = []
    for kind, n, step in (("vae", 1, 2), ("vae", 2, 2), ("lvae", 1, 2), ("lvae", 2, 1)):
        evaluation = {"step": 2, "nelbo": 90.0 - n, **{f"kl/{i:02d}": float(i) for i in range(n)}}
        bound = {"step": step, "iw_samples": 50, "n_images": 9, "nll_bound": 85.0 - n, "split": "valid"}
        told = ({"step": 2, "nelbo": 91.0}, curve, {}, {"split": "valid"})
        results.append(Result(f"mnist_{kind}_{n}", evaluation, bound, *told))
    nothing = Result("other", {}, {}, {}, curve)
    draw_comparison(tmp_path, [*results, nothing])
    assert (tmp_path / "learning_curves.png").stat().st_size > 1000
    assert drawn["bars"] == ({"mnist_vae_2": [1.0, 0.0], "mnist_lvae_2": [1.0, 0.0]}, ["z_1", "z_2"])
    assert [axis.tolist() for axis in drawn["valid, L_1"]["mnist_lvae"]] == [[1, 2], [-89, -88]]
    assert [axis.tolist() for axis in drawn["valid, L_50"]["mnist_vae"]] == [[1, 2], [-84, -83]]
    assert [axis.tolist() for axis in drawn["valid, L_50"]["mnist_lvae"]] == [[1], [-84]]
    with pytest.raises(CfgError, match="--figures: none of these runs has been evaluated"):
        draw_comparison(tmp_path, [nothing])


def test_a_bound_of_other_images_or_weights_is_left_out() -> None:
    evaluation = {"step": 2, "nelbo": 90.0}
    found = {"step": 2, "weights": "raw", "split": "test", "trained_on": "mnist abc", "dataset": "mnist"}
    found |= {"content": "abc", "iw_samples": 50, "n_images": 2000, "nll_bound": 85.0}
    told = {"85.00 (K = 50, 2,000 images)": {}, "85.00 (K = 50, 2,000 images, bfloat16)": {"precision": "bfloat16"}}
    told |= {"-": {"dataset": "fashion_mnist"}, " - ": {"weights": "ema"}, "-  ": {"split": "train"}}
    for cell, changed in told.items():
        own = {"weights": "raw", "split": "test"}
        result = Result("m", evaluation, {**found, **changed}, {}, (np.array([]), np.array([])), {}, own)
        assert results_table([result]).splitlines()[-1].split("|")[4].strip() == cell.strip(), changed


def test_a_table_names_the_split_that_its_runs_were_evaluated_on() -> None:
    def evaluated(**on: str) -> Result:
        return Result("x", {"step": 2, "nelbo": 90.0}, {}, {}, (np.array([]), np.array([])), {}, on)

    valid, test, unknown = evaluated(split="valid"), evaluated(split="test"), evaluated()
    for runs, title in (([valid], "valid"), ([test, unknown], "test"), ([valid, test], "evaluated")):
        assert f"| {title} -ELBO |" in results_table(runs)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(results_csv(results()))
    again = read_results(tmp_path / "table.csv")
    for result, before in zip(again, results(), strict=True):
        assert vars(result) | {"curve": None} == vars(before) | {"curve": None}
    assert results_csv(again) == results_csv(results()) and results_table(again) == results_table(results())
    assert (tmp_path / "table.csv").read_text().splitlines()[0].split(",")[-4:] == [
        f"{key} of z_{i}" for key in ("kl", "informative_units") for i in (1, 2)
    ]
    draw_comparison(tmp_path / "figures", again)
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["depths.png", "kl_per_layer.png"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("90.1", "many", 1), "line 2: nelbo is 'many'; a number was expected"),
        (lambda text: text.replace("abc", "a,0,0"), "line 2: has more or fewer cells"),
        (
            lambda text: text.replace("set_lvae_1,,,,,7", "set_lvae_1,,,,,"),
            "line 3: a run's name, and all or none of step, ",
        ),
        (lambda text: text.replace("set_vae_1", ""), "line 4: a run's name"),
        (lambda text: "a,b\n1,2\n", "no table of results"),
        (lambda text: "", "no table of results"),
        (lambda text: text.replace("abc", '"abc'), "cannot be read as a table of results"),
    ],
)
def test_damage_in_a_table_is_told(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(change(results_csv(results())))
    with pytest.raises(DataError, match=rf"table\.csv.*{message}"):
        read_results(path)
    with pytest.raises(DataError, match=r"table\.csv"):  # before any work
        command([str(cfgs(tmp_path)[1]), *options(tmp_path), "--with", str(path)])
    assert not (tmp_path / "runs").exists()


def test_runs_of_a_table_stand_beside_those_that_are_here(tmp_path: Path) -> None:
    """A run that has been evaluated here counts, one that has only been begun does not."""
    deep, shallow, _ = results()
    newer = Result("set_lvae_2", deep.evaluation | {"nelbo": 80.0}, {}, {}, deep.curve)
    begun, other = Result("set_lvae_1", {}, {}, {}, deep.curve), Result("other", {}, {}, {}, deep.curve)
    assert together([deep, shallow], [newer, begun, other]) == [newer, shallow, other]


def test_what_a_cfg_says_is_done_with_its_run(tmp_path: Path) -> None:
    """Unless the command line says something else."""
    path = cfgs(tmp_path)[0]
    assert len(plan([path], [], [])[0].commands) == 1
    path.write_text(path.read_text().replace("[synthesis]\n", "[synthesis]\nmode = likelihood\n"))
    commands = plan([path], [], [])[0].commands
    assert [words[2] for words in commands] == ["lvae_torch.train", "lvae_torch.synthesize"]
    assert plan([path], [], ["analysis"])[0].commands[1][-1] == "--mode=analysis"


@pytest.mark.parametrize(("of_process", "status"), [(4, 4), (75, 75), (-signal.SIGKILL, 137)])
def test_a_run_that_needs_a_failed_one_fails_as_it_did(tmp_path: Path, of_process: int, status: int) -> None:
    needing, needed = plan(cfgs(tmp_path), [], [])
    needed.process = Mock(**{"poll.return_value": of_process})
    _look_after(needed)
    _give_up_if_unfounded(needing, [needing, needed])
    assert (needed.status, needing.status) == (status, status)


def test_runs_side_by_side_are_spread_over_the_cards(tmp_path: Path) -> None:
    jobs = plan(cfgs(tmp_path), small.override_list(tmp_path), [])
    running = subprocess.Popen(["true"])
    running.wait()
    assert [freest(cards, []) for cards in ([], ["0"], ["2", "5"])] == [None, None, "2"]
    jobs[0].process, jobs[0].card = running, "2"
    assert freest(["2", "5"], jobs) == "5"
    jobs[1].process, jobs[1].card = running, "5"
    assert freest(["2", "5"], jobs) == "2"
    jobs[1].process = None
    assert freest(["2", "5"], jobs) == "5", "its job is done"
