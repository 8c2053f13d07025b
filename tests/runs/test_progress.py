"""How long work shows where it is: lines in a log, a bar at a terminal, and what compression counts."""

import io
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lvae_torch.compression.sources import ToldOf, counted
from lvae_torch.reporting import progress
from lvae_torch.reporting.progress import Progress, duration, shown


class Clock:
    """Seconds that pass as told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


def test_long_work_shows_lines_in_a_log(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """The first after 15 seconds; short work none."""
    tell = Progress()
    for done in range(0, 50_001, 1000):
        clock.now += 1.0
        tell("evaluating", done, 50_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "evaluating 15,000 of 50,000 (30%)  0:00:35 to go",
        "evaluating 30,000 of 50,000 (60%)  0:00:20 to go",
        "evaluating 45,000 of 50,000 (90%)  0:00:05 to go",
    ]
    for _ in shown(range(3), "generation", 5, 12):
        clock.now += 1.0
    assert capsys.readouterr().err == ""


def test_work_shows_its_items_and_how_many_are_done(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    items = []
    for item in shown("abcd", "decoding", 5, 18):
        clock.now += 20.0
        items.append(item)
    assert items == list("abcd")
    assert capsys.readouterr().err.splitlines() == [
        "decoding 5 of 18 (28%)  0:00:52 to go",
        "decoding 10 of 18 (56%)  0:00:32 to go",
        "decoding 15 of 18 (83%)  0:00:12 to go",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_rate_and_time_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    course = progress.Course(400, name="likelihood", stays=True)
    time.sleep(0.15)  # the bar is drawn anew every tenth of a second
    course.reached(100)
    course.close()
    last = terminal.getvalue().split("\r")[-1]
    assert "likelihood:  25%" in last and "100/400" in last
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d, +[\d.]+/s\]", last), last


def test_compression_tells_how_many_images_are_in(tmp_path: Path) -> None:
    """The chain takes the last images first; what it looks at besides, and takes again, moves nothing forward."""
    told: list[int] = []

    class Source:
        def __len__(self) -> int:
            return 10

        def levels(self, first: int, n: int) -> np.ndarray:
            return np.zeros((n, 1, 1, 1), dtype=np.int64)

    source = ToldOf(Source(), told.append)
    for first, n in ((0, 1), (4, 1), (6, 4), (8, 2), (5, 3), (0, 5)):
        source.levels(first, n)
    assert told == [4, 2, 5, 10]
    assert sum(len(group) for group in counted(iter([np.zeros((3, 1)), np.zeros((2, 1))]), told.append)) == 5
    assert told[4:] == [3, 5]


def test_durations() -> None:
    assert [duration(s) for s in (0, 59.9, 61, 3600 * 30)] == ["0:00:00", "0:00:59", "0:01:01", "30:00:00"]
