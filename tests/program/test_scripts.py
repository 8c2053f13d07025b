"""``reset.sh`` and ``docker_run.sh``: what they do to the files and commands of a user."""

import os
import pty
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from shell import Run, contents, stub

from lvae_torch.runs.folder import RunFolder
from lvae_torch.runs.locks import held

# --- reset.sh ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with two runs, a folder that is none, and something precious beside them."""
    for name in ("mnist", "other"):
        run = tmp_path / "runs" / name
        (run / "checkpoints").mkdir(parents=True)
        (run / "hparams.cfg").write_text("[run]\n")
        (run / "status.json").write_text('{\n  "state": "finished",\n  "step": 12,\n  "message": ""\n}\n')
        (run / "checkpoints" / "step_00000012.pt").write_bytes(b"0" * 50_000)
        (run / "run.lock").write_text("process 1 on nowhere\n")
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "notes" / "diary.txt").write_text("dear diary")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "hparams.cfg").write_text("[run]\n")
    return tmp_path


@pytest.fixture
def reset(repository: Path, place: Path) -> Run:
    """Run ``reset.sh`` beside the runs, with nobody there to answer."""

    def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        options = {"stdin": subprocess.DEVNULL, "cwd": place} | options
        return subprocess.run(
            [str(repository / "reset.sh"), *arguments], capture_output=True, text=True, timeout=60, **options
        )

    return run


def answering(repository: Path, place: Path, answer: bytes) -> tuple[int, str]:
    """Run ``reset.sh mnist`` on a terminal, where somebody types ``answer``: exit status and what was shown."""
    ours, theirs = pty.openpty()
    command = [str(repository / "reset.sh"), "mnist"]
    with subprocess.Popen(
        command, cwd=place, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        os.close(theirs)
        os.write(ours, answer)
        shown = process.communicate(timeout=60)[0].decode()
    os.close(ours)
    return process.returncode, shown


def test_reset_removes_one_run_and_nothing_else(reset: Run, place: Path) -> None:
    before = contents(place)
    result = reset("mnist", "--yes")
    assert (result.returncode, result.stderr) == (0, "")
    assert contents(place) == [path for path in before if not (path + "/").startswith("runs/mnist/")]


def test_reset_shows_what_the_run_holds(reset: Run) -> None:
    shown = reset("mnist", "--yes").stdout
    for part in ("runs/mnist: ", "4 files", "1 checkpoints", "state finished, step 12", "  checkpoints\n"):
        assert part in shown
    size = re.search(r"runs/mnist: (\d+)K,", shown)
    assert size is not None and 50 <= int(size[1]) < 150, "50,000 bytes, in blocks, with folders"


def test_reset_does_not_follow_links_out_of_the_run(reset: Run, place: Path) -> None:
    (place / "runs" / "mnist" / "synthesis").symlink_to(place / "precious")
    assert reset("mnist", "--yes").returncode == 0
    assert contents(place / "precious") == ["hparams.cfg"]


@pytest.mark.parametrize("order", [("--runs", "my runs", "mnist"), ("mnist", "--runs=my runs")])
def test_reset_finds_runs_elsewhere(reset: Run, place: Path, order: Sequence[str]) -> None:
    (place / "runs").rename(place / "my runs")
    assert reset(*order, "--yes").returncode == 0
    assert not (place / "my runs" / "mnist").exists()


def test_reset_finds_runs_in_the_home_folder(reset: Run, place: Path) -> None:
    """bash hands on the ~ of --runs=~/runs as it is."""
    assert reset("--runs=~/runs", "mnist", "--yes", env={**os.environ, "HOME": str(place)}).returncode == 0
    assert not (place / "runs" / "mnist").exists() and (place / "runs").is_dir()


UNSAFE_NAMES = [
    *("", ".", "..", "../precious", "runs/mnist", "mnist/", "/", "/etc", "mnist/../other", "a..b", "..mnist", ".mnist"),
    *(
        "-mnist",
        " mnist",
        "mnist ",
        "*",
        "mn?st",
        "mnist\n",
        "mnist\nother",
        "$(touch oh)",
        "~",
        "m\\nist",
        "ä",
        "m" * 129,
    ),
]


@pytest.mark.parametrize("separator", [(), ("--",)], ids=["plain", "after --"])
@pytest.mark.parametrize("name", UNSAFE_NAMES, ids=repr)
def test_reset_refuses_names_that_are_not_names(reset: Run, place: Path, name: str, separator: tuple[str, ...]) -> None:
    before = contents(place)
    result = reset("--yes", *separator, name)
    assert result.returncode == 2
    assert result.stderr.startswith("reset.sh: ")
    assert contents(place) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give the name of one run"),
        (["mnist", "other"], "give the name of one run"),
        (["mnist", "--force"], "unknown option --force"),
        (["mnist", "--runs"], "--runs needs a folder"),
        (["mnist", "--runs", ""], "no folder of runs"),
        (["mnist", "--runs", "nowhere"], "no folder of runs at 'nowhere'"),
        (["cifar"], "there is no run 'cifar'"),
        (["notes"], "it has no hparams.cfg"),
    ],
)
def test_reset_says_why_it_refuses(reset: Run, place: Path, arguments: list[str], says: str) -> None:
    before = contents(place)
    result = reset("--yes", *arguments)
    assert result.returncode == 2
    assert says in result.stderr
    assert contents(place) == before


def test_reset_refuses_links_and_files(reset: Run, place: Path) -> None:
    (place / "runs" / "link").symlink_to(place / "precious")
    (place / "runs" / "file").write_text("not a run")
    (place / "runs" / "notes" / "hparams.cfg").symlink_to(place / "precious" / "hparams.cfg")
    before = contents(place)
    for name in ("link", "file", "notes"):
        assert reset(name, "--yes").returncode == 2
    assert contents(place) == before


@pytest.mark.skipif(shutil.which("flock") is None, reason="needs flock, of util-linux")
def test_reset_refuses_a_run_in_use(reset: Run, place: Path) -> None:
    folder = RunFolder(place / "runs", "mnist")
    with folder.lock():
        result = reset("mnist", "--yes")
        assert result.returncode == 2
        assert f"in use by process {os.getpid()} on " in result.stderr
        assert (folder.path / "checkpoints" / "step_00000012.pt").exists()
    with held(folder.synthesis("likelihood").with_suffix(".lock"), folder.path, ""):
        assert reset("mnist", "--yes").returncode == 2
    assert reset("mnist", "--yes").returncode == 0


def test_reset_without_a_terminal_needs_yes(reset: Run, place: Path) -> None:
    before = contents(place)
    result = reset("mnist")
    assert result.returncode == 2
    assert "--yes" in result.stderr
    assert reset("mnist", stdin=None, input="y\n").returncode == 2, "a pipe is not somebody"
    assert contents(place) == before


@pytest.mark.parametrize("answer", [b"y\n", b"Y\n", b"yes\n"])
def test_reset_asks_and_hears_yes(repository: Path, place: Path, answer: bytes) -> None:
    status, shown = answering(repository, place, answer)
    assert status == 0
    assert shown.index("4 files") < shown.index("Remove this run? [y/N]") < shown.index("Removed")
    assert not (place / "runs" / "mnist").exists()


@pytest.mark.parametrize("answer", [b"n\n", b"\n", b"yn\n", b"\x04"], ids=repr)
def test_reset_takes_all_else_for_no(repository: Path, place: Path, answer: bytes) -> None:
    before = contents(place)
    status, shown = answering(repository, place, answer)
    assert status == 1
    assert "Nothing was removed." in shown
    assert contents(place) == before


def test_a_reset_cut_short_can_be_repeated(reset: Run, place: Path) -> None:
    stub(place / "bin", "rm", "echo 'rm: disk on fire' >&2; exit 1")
    broken = os.environ | {"PATH": f"{place / 'bin'}:{os.environ['PATH']}"}
    result = reset("mnist", "--yes", env=broken)
    assert result.returncode == 1
    assert "could not be removed as a whole" in result.stderr
    assert "Removed" not in result.stdout
    assert reset("mnist", "--yes").returncode == 0
    assert not (place / "runs" / "mnist").exists()
