"""What a run says of itself while it lives: ``status.json``, and ``lvae show RUN``."""

import json
import os
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import small
import torch

from lvae_torch.distributed.processes import Processes
from lvae_torch.errors import CfgError, DataError
from lvae_torch.files import read_json
from lvae_torch.runs import status as status_module
from lvae_torch.runs.folder import RunFolder
from lvae_torch.runs.status import RunStatus
from lvae_torch.show import command as show
from lvae_torch.train import train


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a run writes into its status, one after the other."""
    written: list[dict[str, Any]] = []
    write = RunFolder.write_status

    def noted(self: RunFolder, *arguments: Any, **keywords: Any) -> None:
        write(self, *arguments, **keywords)
        written.append(read_json(self.status_json))

    monkeypatch.setattr(RunFolder, "write_status", noted)
    return written


def test_a_run_tells_what_it_does(
    tmp_path: Path, told: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    small.write_dump(tmp_path / "dumps")
    train(small.settings(tmp_path, val__iw_samples=3))
    assert capsys.readouterr().err.startswith("device: cpu, 1 thread; [run] device = cpu\n")
    phases = [(status.get("phase"), status["step"]) for status in told]
    order = [phases.index(wanted) for wanted in
             [("checking data", 0), ("training", 2), ("evaluating", 3), ("drawing pictures", 3), ("training", 4),
              ("evaluating", 6), ("saving", 6)]]  # fmt: skip
    assert order == sorted(order), phases
    last = told[-1]
    assert (last["state"], last["step"], last["steps"], last["device"]) == ("finished", 6, 6, "cpu")
    evaluation = last["last_evaluation"]
    lines = [json.loads(line) for line in (tmp_path / "runs/small/metrics.jsonl").read_text().splitlines()]
    values = [line for line in lines if "val/nelbo" in line][-1]
    assert evaluation == {"step": 6, **{k: values[f"val/{k}"] for k in ("nelbo", "bpd", "iw_bound", "iw_bpd")}}
    logged = next(status for status in told if status.get("phase") == "training" and status["step"] == 4)
    rate = next(line for line in lines if line["step"] == 4)["speed/images_per_second"]
    assert logged["images_per_second"] == rate
    assert logged["seconds_to_go"] == pytest.approx(2 * 8 / rate, abs=0.1)
    assert (logged["done"], logged["total"]) == (4, 6)


def test_the_status_is_fresh_whatever_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_module, "BEAT", 0.02)
    folder = RunFolder(tmp_path, "r")
    folder.path.mkdir()
    status = RunStatus(folder, Processes(0, 1, torch.device("cpu")), steps=10, batch_size=4)
    status.has_begun = True
    with status.alive():
        status.tell("evaluating", 0, 50_000)
        time.sleep(0.1)
        status._done = 12_000  # as ``tell`` does between two beats
        deadline = time.monotonic() + 20
        while read_json(folder.status_json)["done"] != 12_000:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    found = read_json(folder.status_json)
    assert (found["phase"], found["total"]) == ("evaluating", 50_000)
    assert found["seconds_to_go"] > 0


def test_what_is_over_is_not_said_to_go_on(tmp_path: Path) -> None:
    """Between log lines, which may be hours apart, a run trains."""
    folder, alone = RunFolder(tmp_path, "r"), Processes(0, 1, torch.device("cpu"))
    folder.path.mkdir()
    status, phases = RunStatus(folder, alone, steps=10, batch_size=4), []
    status.step = lambda: 3
    status.tell("checking data", 5, 5)
    with status_module.kept_status(status, alone, lambda: None):
        for work in (
            ("evaluating", 2, 9),
            ("evaluating", 9, 9),
            ("drawing pictures", 8, 64),
            ("drawing pictures", 64, 64),
        ):
            phases.append(read_json(folder.status_json)["phase"])
            status.tell(*work)
        found = read_json(folder.status_json)
    assert phases == ["training", "evaluating", "training", "drawing pictures"]
    assert (found["phase"], found["done"], found["total"]) == ("training", 3, 10)


@pytest.mark.parametrize(("reason", "state"), [(None, "finished"), (ValueError("no"), "failed")], ids=str)
def test_an_end_stands_while_trackers_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: Exception | None, state: str
) -> None:
    """Which takes up to a minute each; the status is told to be fresh all the while."""
    monkeypatch.setattr(status_module, "BEAT", 0.01)
    folder, alone = RunFolder(tmp_path, "r"), Processes(0, 1, torch.device("cpu"))
    folder.path.mkdir()
    status = RunStatus(folder, alone, steps=10, batch_size=4)
    with status.alive():
        with suppress(ValueError), status_module.kept_status(status, alone, lambda: None):
            if reason is not None:
                raise reason
        time.sleep(0.2)
        status.tell("drawing pictures", 1, 2)
        assert read_json(folder.status_json)["state"] == state
    assert read_json(folder.status_json)["state"] == state


def test_a_run_that_was_refused_keeps_its_status(tmp_path: Path) -> None:
    small.write_dump(tmp_path / "dumps")
    train(small.settings(tmp_path))
    path = tmp_path / "runs/small/status.json"
    before = path.read_bytes()
    for file in (tmp_path / "dumps/small").glob("test_*.npy"):
        file.write_bytes(file.read_bytes()[:-1] + b"\7")
    with pytest.raises(ValueError, match="its bytes differ"):
        train(small.settings(tmp_path))
    assert path.read_bytes() == before


def status_file(folder: Path, **values: Any) -> None:
    known = {
        "state": "running", "step": 1200, "message": "", "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(), "process": os.getpid(), "steps": 5000, "device": "cpu",
        "images_per_second": 512.4,
        "last_evaluation": {"step": 1000, "nelbo": 93.25, "bpd": None}, "phase": "evaluating", "done": 12_000,
        "total": 50_000, "seconds_to_go": 75.0,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "status.json").write_text(json.dumps(known | values))


def test_show_tells_of_a_run_that_lives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status_file(tmp_path / "runs" / "m")
    for what in ([str(tmp_path / "runs" / "m")], ["m", "--runs", str(tmp_path / "runs")]):
        show(what)
        rows = dict(line.strip().split("  ", 1) for line in capsys.readouterr().out.splitlines()[2:])
        rows = {key: value.strip() for key, value in rows.items()}
        assert rows["state"] == "running" and rows["step"] == "1,200 of 5,000 (24%)"
        assert rows["phase"] == "evaluating 12,000 of 50,000 (24%)" and rows["to go"] == "0:01:15"
        assert rows["rate"] == "512 images/s" and rows["last evaluation"] == "step 1,000  nelbo 93.25"


@pytest.mark.parametrize("option", ["--split=test", "--out=sheet.png"])
def test_what_shows_a_dump_does_not_suit_a_run(tmp_path: Path, option: str) -> None:
    status_file(tmp_path / "m")
    with pytest.raises(CfgError, match=r"m is a run; --split and --out are for dumps"):
        show([str(tmp_path / "m"), option])


def test_show_tells_all_digits_of_the_last_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status_file(tmp_path / "m", last_evaluation={"step": 1_234_567, "nelbo": 12345.678, "bpd": 3.14159})
    show([str(tmp_path / "m")])
    assert "step 1,234,567  nelbo 12345.68  bpd 3.1416\n" in capsys.readouterr().out


def test_show_says_which_runs_there_are(tmp_path: Path) -> None:
    """What is neither a run nor a dump may be a mistyped run; a bundle and a run without a status are told as such."""
    runs = tmp_path / "runs"
    for name in ("small", "new"):
        (runs / name).mkdir(parents=True)
        (runs / name / "hparams.cfg").touch()
    with pytest.raises(DataError, match=r"smal: there is no such run \(Runs: .*runs has new, small\), and no dump"):
        show(["smal", "--runs", str(runs)])
    with pytest.raises(DataError, match=r"new: a run that has no status\.json.*lvae report new"):
        show(["new", "--runs", str(runs)])
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "model.safetensors").touch()
    with pytest.raises(DataError, match=r"shared: a bundle"):
        show([str(tmp_path / "shared")])


def test_a_second_interrupt_is_no_failure(tmp_path: Path) -> None:
    folder, alone = RunFolder(tmp_path, "r"), Processes(0, 1, torch.device("cpu"))
    folder.path.mkdir()
    status = RunStatus(folder, alone, steps=10, batch_size=4)
    with pytest.raises(KeyboardInterrupt), status_module.kept_status(status, alone, lambda: None):
        raise KeyboardInterrupt
    found = read_json(folder.status_json)
    assert found["state"] == "preempted" and "SIGINT" in found["message"]


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"process": 2**22 + 1}, "killed"),  # larger than any process's number
        ({"host": "elsewhere", "process": 1}, "running"),
        ({"host": "elsewhere", "time": (datetime.now(UTC) - timedelta(hours=1)).isoformat()}, "killed"),
        ({"state": "preempted", "message": "stopped at step 1200"}, "preempted"),
    ],
)
def test_show_tells_whether_a_run_lives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], state: str
) -> None:
    status_file(tmp_path / "m", **change)
    show([str(tmp_path / "m")])
    out = capsys.readouterr().out
    assert f"state            {state}" in out
    assert change.get("message", "") in out


def test_show_says_what_is_wrong_with_a_path(tmp_path: Path) -> None:
    with pytest.raises(CfgError, match=r"NOWHERE_AT_ALL of .* is not set"):
        show(["$NOWHERE_AT_ALL/x"])
