"""What people and machines see of a run: each file is read back by its own reader, and the numbers must be there."""

import io
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from disks import full_disk

from lvae_torch.errors import DataError
from lvae_torch.reporting import progress
from lvae_torch.reporting.console import ConsoleReporter, number, table
from lvae_torch.reporting.jsonl import JsonlReporter
from lvae_torch.reporting.reporter import Reporter, Reporters
from lvae_torch.reporting.trackers.tensorboard import TensorBoardReporter

GRID = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


# Several as one


class Recorder:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.calls.append(("scalars", step, dict(values)))

    def image(self, step: int, tag: str, grid: np.ndarray) -> None:
        self.calls.append(("image", step, tag, grid.shape))

    def histogram(self, step: int, tag: str, values: np.ndarray) -> None:
        self.calls.append(("histogram", step, tag, values.tolist()))

    def close(self) -> None:
        self.calls.append(("close",))


class Unwritable(Recorder):
    def close(self) -> None:
        raise DataError("full")


def report_all(reporter: Reporter) -> None:
    reporter.scalars(3, {"train/loss": 1.5})
    reporter.image(3, "samples", GRID)
    reporter.histogram(3, "val/kl_units/00", np.array([0.5, 2.0]))


def test_each_reporter_is_told_everything() -> None:
    recorders = [Recorder(), Recorder()]
    reporters = Reporters(recorders)
    report_all(reporters)
    reporters.close()
    for recorder in recorders:
        assert recorder.calls == [
            ("scalars", 3, {"train/loss": 1.5}),
            ("image", 3, "samples", GRID.shape),
            ("histogram", 3, "val/kl_units/00", [0.5, 2.0]),
            ("close",),
        ]


@pytest.mark.parametrize(
    ("value", "told"),
    [(-0.004, "0.00"), (0.004, "0.00"), (-0.006, "-0.01"), (1234.567, "1234.57"), (float("nan"), "not finite")],
)
def test_numbers_have_no_negative_zero(value: float, told: str) -> None:
    """A KL that is estimated by sampling is as often a little below 0 as above, in a layer that is not used."""
    assert number(value, 2) == told


def test_each_reporter_is_closed_even_if_another_cannot_be() -> None:
    recorders = [Recorder(), Recorder()]
    with pytest.raises(DataError, match="full"):
        Reporters([recorders[0], Unwritable(), recorders[1]]).close()
    assert [recorder.calls for recorder in recorders] == [[("close",)], [("close",)]]


def test_every_reporter_takes_everything(tmp_path: Path) -> None:
    reporters = Reporters([TensorBoardReporter(tmp_path), JsonlReporter(tmp_path / "m.jsonl"), ConsoleReporter(9)])
    report_all(reporters)
    reporters.close()
    reporters.close()  # once more does no harm


# metrics.jsonl


def records(path: Path) -> list[dict[str, float | None]]:
    """Without the times."""

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    lines = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert all(list(line)[:2] == ["step", "time"] and line["time"] > 1.7e9 for line in lines)
    return [{key: value for key, value in line.items() if key not in ("time", "crc32")} for line in lines]


def report_steps(path: Path, first: int, last: int, start_step: int = 0) -> None:
    reporter = JsonlReporter(path, start_step)
    for step in range(first, last + 1):
        reporter.scalars(step, {"train/loss": step / 3})
        if step % 2 == 0:
            reporter.scalars(step, {"val/nelbo": float(step)})
    reporter.close()


def test_each_line_is_json_and_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    reporter = JsonlReporter(path)
    reporter.scalars(10, {"a": 0.1, "b": np.float32(0.5), "c": 7})
    assert records(path) == [{"step": 10, "a": 0.1, "b": 0.5, "c": 7.0}]
    reporter.scalars(20, {"a": float("nan"), "b": float("inf"), "c": -float("inf")})
    assert records(path)[1] == {"step": 20, "a": None, "b": None, "c": None}


@pytest.mark.parametrize("torn", [b"", b'{"step": 8, "ti', b'{"step": 6, "time": 1.8e9}', b"\0" * 50])
def test_a_resumed_file_is_that_of_an_uninterrupted_run(tmp_path: Path, torn: bytes) -> None:
    whole, resumed = tmp_path / "whole.jsonl", tmp_path / "resumed.jsonl"
    report_steps(whole, 1, 10)
    report_steps(resumed, 1, 7)
    with resumed.open("ab") as file:
        file.write(torn)
    report_steps(resumed, 7, 10, start_step=6)  # the last checkpoint was of step 6
    assert records(resumed) == records(whole)


def test_later_steps_go_where_an_earlier_one_was_told_again_behind_them(tmp_path: Path) -> None:
    """As a run does whose best weights were evaluated at its end."""
    path = tmp_path / "metrics.jsonl"
    report_steps(path, 1, 7)
    JsonlReporter(path, start_step=7).scalars(3, {"val/nelbo": 1.0})
    JsonlReporter(path, start_step=4)
    assert [record["step"] for record in records(path)] == [1, 2, 2, 3, 4, 4, 3]


def test_an_evaluation_that_will_be_repeated_is_not_told_twice(tmp_path: Path) -> None:
    """A kill came between its lines and the checkpoint that knows of it."""
    whole, resumed = tmp_path / "whole.jsonl", tmp_path / "resumed.jsonl"
    report_steps(whole, 1, 6)
    report_steps(resumed, 1, 6)
    JsonlReporter(resumed, 6, is_evaluated=False).scalars(6, {"val/nelbo": 6.0})
    assert records(resumed) == records(whole)
    JsonlReporter(resumed, 6)
    assert records(resumed) == records(whole)


def test_lines_of_an_older_version_without_checksums_stay(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    old = b"".join(b'{"step": %d, "time": 1.8e9, "train/loss": %d}\n' % (step, step) for step in range(1, 7))
    path.write_bytes(old)
    report_steps(path, 7, 8, start_step=6)
    assert path.read_bytes().startswith(old)
    JsonlReporter(path, 8)
    assert [record["step"] for record in records(path)] == [1, 2, 3, 4, 5, 6, 7, 8, 8]


def test_a_start_from_nothing_drops_what_a_lost_start_wrote(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    report_steps(path, 1, 7)
    JsonlReporter(path)
    assert path.read_text() == ""


CHANGED = b'{"step": 3, "time": 1.8e9, "train/loss": 1.0, "crc32": 2}'


NAMELESS = b'{"step": 3, "time": 1.8e9, "train/loss": 2.0, "crg32": 3}'
"""A byte of the checksum's own name is another."""


@pytest.mark.parametrize("damage", [b"\0\0\0", b"\xff\xfe", b"", b"[1]", b'{"step": 2, "crc32": 1}', CHANGED, NAMELESS])
def test_damage_in_the_middle_is_refused_by_name(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    report_steps(path, 1, 6)
    lines = path.read_bytes().split(b"\n")
    lines[3] = damage
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=r"metrics\.jsonl: line 4 is damaged"):
        JsonlReporter(path, 6)
    assert path.read_bytes() == b"\n".join(lines)


def test_a_full_disk_stops_the_log_and_the_rest_is_readable(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    report_steps(path, 1, 4)
    before = records(path)
    with (
        full_disk(path.stat().st_size + 20),
        pytest.raises(DataError, match=r"metrics\.jsonl: cannot be written \(File"),
    ):
        report_steps(path, 5, 5, start_step=4)
    report_steps(path, 5, 5, start_step=4)
    assert records(path) == [*before, {"step": 5, "train/loss": 5 / 3}]


# The console

TRAINED = {"train/nelbo": 90.126, "train/nll": 70.0, "train/kl": 20.126, "train/bpd": 0.16584, "train/loss": 0.1}
EVALUATED = {"val/nelbo": 88.5, "val/bpd": 0.1629}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """What ``time.monotonic`` says: its only entry."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    yield now


def test_a_log_gets_one_plain_line_each_time(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    reporter = ConsoleReporter(12_000, start_step=1000)
    clock[0] += 60  # 1000 steps in a minute: 10,000 more take ten
    reporter.scalars(2000, {**TRAINED, "speed/images_per_second": 1066.7})
    reporter.scalars(2000, EVALUATED)
    reporter.image(2000, "samples", GRID)
    reporter.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "step 2,000/12,000 (17%)  -ELBO 90.13  NLL 70.00  KL 20.13  bits/dim 0.1658  1,067 images/s  0:10:00 to go",
        "step 2,000: validation -ELBO 88.50  bits/dim 0.1629",
    ]


def test_the_time_to_go_counts_hours_and_ends_at_zero(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    reporter = ConsoleReporter(100)
    clock[0] += 3725
    for step in (50, 100):
        reporter.scalars(step, {})
    assert re.findall(r"\S+ to go", capsys.readouterr().err) == ["1:02:05 to go", "0:00:00 to go"]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    reporter = ConsoleReporter(1000, start_step=400)
    reporter.scalars(500, TRAINED)
    reporter.scalars(500, EVALUATED)
    reporter.scalars(1000, TRAINED)
    reporter.close()
    shown = terminal.getvalue()
    assert " 40%" in shown.split("\r")[1] and "400/1000" in shown
    assert "1000/1000" in shown and "-ELBO 90.13  NLL 70.00  KL 20.13  bits/dim 0.1658" in shown
    assert "step 500: validation -ELBO 88.50  bits/dim 0.1629\n" in shown


def test_a_table_lines_up() -> None:
    assert table("mnist: finished", [("steps", "1,000"), ("-ELBO", "88.50 nats")]).splitlines() == [
        "mnist: finished",
        "-------------------",
        "  steps  1,000",
        "  -ELBO  88.50 nats",
    ]
    assert table("empty", []) == "empty\n-----"


# Pictures


def constant(*levels: int, size: int = 60) -> torch.Tensor:
    """One grey image for each level of 255, (N, 1, size, size)."""
    return (torch.tensor(levels) / 255)[:, None, None, None].expand(-1, 1, size, size)
