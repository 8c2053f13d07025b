"""Odd surroundings: a clock set back, a plain locale, spaces and umlauts, thousands of steps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import small
from faults import Figure, Place
from nursery import REPOSITORY, Nursery

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_clock_set_back(place: Place, figure: Figure) -> None:
    """By a day, between two starts: same weights, same numbers, and TensorBoard shows the later file last."""
    for steps in (4, 8):
        place.finish("whole", train__steps=steps)
    place.finish("parts", train__steps=4)
    place.finish("parts", train__steps=8, patches=[("clock", -86400.0)])
    place.assert_same("whole", "parts")
    files = sorted(place.run("parts").tensorboard.iterdir())
    assert len(files) == 2 and files[1].stat().st_mtime >= files[0].stat().st_mtime
    figure("clock set back by a day between two starts", "equal to the bit, TensorBoard's files in order")


def test_a_clock_that_jumps(place: Place, figure: Figure) -> None:
    """Forward and back by a day all along: no waiting, no decision and no weight goes by the clock of the wall."""
    place.finish("whole", world=2, train__steps=8)
    place.finish("parts", world=2, train__steps=8, patches=[("jumping_clock", 86400.0)])
    place.assert_same("whole", "parts")
    figure("clock that jumps by a day, to and fro, 2 ranks", "equal to the bit")


@pytest.mark.parametrize("odd", ["plain", "mit Leerzeichen und Ümläuten"])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_locales_and_paths(tmp_path: Path, figure: Figure, odd: str, locale: str) -> None:
    """Whole commands, for the interpreter reads the locale when it starts."""
    folder = tmp_path / odd
    small.write_dump(folder / "dumps")
    (folder / "small.cfg").write_text("# ε, β and ü\n" + small.CFG, encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHON"))}
    environment |= {"LC_ALL": locale, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    sets = [part for item in small.override_list(folder, {"train__steps": 3}) for part in ("--set", item)]
    for command in ("train", "synthesize"):
        line = [sys.executable, "-m", f"lvae_torch.{command}", str(folder / "small.cfg"), *sets]
        result = subprocess.run(line, env=environment, capture_output=True, timeout=300)
        assert result.returncode == 0 and b"Traceback" not in result.stderr, result.stderr.decode()
    figure(f"locale {locale}, folder '{odd}'", "trains and synthesizes")


def test_thousands_of_steps_grow_nothing(nursery: Nursery, place: Place, figure: Figure) -> None:
    """Memory, open files and threads after a tenth of the steps and at the end, with logs and checkpoints all along."""
    steps, log = 20_000, place.folder / "resources"
    overrides = {"train__steps": steps, "train__log_every": 100, "train__checkpoint_every": 500, "val__every": 2000}
    child = place.start("small", patches=[("tell_resources", str(log), 500)], **overrides)
    assert child.wait(800) == 0, child.said
    rows = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    early, late = rows[len(rows) // 10], rows[-1]
    assert late[1] - early[1] < 8 * 1024, f"resident memory grew from {early[1]} to {late[1]} KiB"
    assert late[2] <= early[2] and late[3] <= early[3] + 1, f"open files or threads grew: {early}, {late}"
    memory, files, threads = (late[k] - early[k] for k in (1, 2, 3))
    outcome = f"resident memory {memory:+,} KiB, open files {files:+}, threads {threads:+}"
    figure(f"{steps:,} steps, 40 checkpoints, 200 log lines", outcome)
