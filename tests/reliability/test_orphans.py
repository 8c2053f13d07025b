"""Nobody outlives the one who started it: agents of torchrun killed in turn with starts, and a killed sweep."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small
from faults import Figure, Place, rounds, torchrun
from leftovers import _descendants as descendants

from lvae_torch.distributed.launcher import is_gone
from lvae_torch.files import read_json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def wait_until_gone(processes: list[int], seconds: float = 30) -> float:
    """How long it took them to end."""
    began = time.monotonic()
    while not all(map(is_gone, processes)):
        assert time.monotonic() - began < seconds, "they train on"
        time.sleep(0.05)
    return time.monotonic() - began


def test_a_killed_agent_in_turn_with_starts(place: Place, figure: Figure) -> None:
    """Each new start may come while the workers of the old one are still saving."""
    generator, n, slowest = random.Random(0), rounds(5), 0.0
    overrides = {"train__steps": 60 * n, "train__checkpoint_every": 1000, "val__every": 50}
    for k in range(n):
        process = torchrun(place, "parts", **overrides)
        place.wait_for_lines("parts", process, 2)
        time.sleep(generator.uniform(0, 0.3))
        workers = descendants(process.process.pid)
        process.process.kill()
        process.process.wait()
        if k % 2:  # otherwise the next start meets them
            slowest = max(slowest, wait_until_gone(workers))
    wait_until_gone(workers)
    assert place.status("parts")["state"] == "preempted", "it was saved as after a signal"
    place.finish("parts", world=2, **overrides)
    place.finish("whole", world=2, **overrides)
    place.assert_same("whole", "parts")
    figure(
        "agent of torchrun killed, in turn with starts",
        f"{n} kills: gone after {slowest:.1f} s at most, equal to the bit",
    )


def test_the_runs_of_a_killed_sweep_end(tmp_path: Path, repository: Path) -> None:
    small.write_dump(tmp_path / "dumps")
    (tmp_path / "small.cfg").write_text(small.CFG)
    sets = [f"--set={item}" for item in small.override_list(tmp_path, {"train__steps": 10**6, "val__every": 0})]
    line = [sys.executable, "-m", "lvae_torch.sweep", str(tmp_path / "small.cfg"), *sets]
    environment = os.environ | {"PYTHONPATH": str(repository)}
    sweep = subprocess.Popen(line, cwd=repository, env=environment, stderr=subprocess.DEVNULL)
    log, deadline = tmp_path / "runs" / "small" / "metrics.jsonl", time.monotonic() + 120
    while not log.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started = descendants(sweep.pid)
    assert started
    sweep.kill()
    sweep.wait()
    wait_until_gone(started)
    assert read_json(tmp_path / "runs" / "small" / "status.json")["state"] == "preempted"
