"""``reset.sh`` and ``docker_run.sh``: what they do to the files and commands of a user."""

import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lvae_torch.runs.folder import RunFolder
from lvae_torch.runs.locks import held

Run = Callable[..., subprocess.CompletedProcess[str]]


def stub(folder: Path, name: str, body: str) -> None:
    """An executable ``name`` that stands in for the real one."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


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


# --- docker_run.sh ----------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """A checkout whose path has a space, and a PATH on which docker and nvidia-smi (no GPU) are stand-ins."""
    folder = tmp_path / "my checkout"
    folder.mkdir()
    shutil.copy(repository / "docker_run.sh", folder)
    stub(tmp_path / "bin", "nvidia-smi", "exit 9")
    stub(tmp_path / "bin", "docker", '[[ $1 == image ]] || printf "%s\\0" docker "$@"')
    return folder


@pytest.fixture
def docker_run(checkout: Path) -> Run:
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        env = {key: value for key, value in os.environ.items() if not key.startswith("LVAE_")}
        env |= {"PATH": f"{checkout.parent / 'bin'}:{env['PATH']}"} | variables
        return subprocess.run(
            [str(checkout / "docker_run.sh"), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env=env,
            stdin=subprocess.DEVNULL,
        )

    return run


def planned(docker_run: Run, *arguments: str, **variables: str) -> list[str]:
    """The words of the command that ``--dry-run`` prints."""
    result = docker_run("--dry-run", *arguments, **variables)
    assert result.returncode == 0, result.stderr
    return shlex.split(result.stdout)


def inside(words: Sequence[str], image: str = "lvae_torch") -> list[str]:
    """The part of a ``docker run`` that runs in the image."""
    return list(words[words.index(image) + 1 :])


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ([], "bash"),
        (["train", "egs/quickstart.cfg"], "python -m lvae_torch.train egs/quickstart.cfg"),
        (["train", "--help"], "python -m lvae_torch.train --help"),
        (["synthesize", "mnist", "--mode", "generation"], "python -m lvae_torch.synthesize mnist --mode generation"),
        (["info", "egs/quickstart.cfg"], "python -m lvae_torch.info egs/quickstart.cfg"),
        (["export", "mnist", "out"], "python -m lvae_torch.export mnist out"),
        (["lvae", "models"], "lvae models"),
        (["data", "multi_dsprites"], "python -m data_scripts multi_dsprites"),
        (
            ["torchrun", "--standalone", "-m", "lvae_torch.train", "a.cfg"],
            "torchrun --standalone -m lvae_torch.train a.cfg",
        ),
        (["--", "ls", "--dry-run"], "ls --dry-run"),
    ],
)
def test_docker_run_maps_its_commands(docker_run: Run, arguments: list[str], command: str) -> None:
    assert inside(planned(docker_run, *arguments)) == command.split()


AWKWARD = ["run.name=a b", "", "*", "it's", 'say "x"', "$HOME", "(1, 2)", "a;b", "--network", "-x"]


def test_docker_run_hands_every_argument_on_as_it_is(docker_run: Run) -> None:
    assert inside(planned(docker_run, "python", *AWKWARD)) == ["python", *AWKWARD]
    result = docker_run("python", *AWKWARD)
    assert result.stdout.split("\0")[:-1] == planned(docker_run, "python", *AWKWARD), "what is printed is what is run"


def test_docker_run_mounts_checkout_dumps_and_runs(docker_run: Run, checkout: Path) -> None:
    words = planned(docker_run, "train", "a.cfg")
    assert [words[i + 1] for i, word in enumerate(words) if word == "--mount"] == [
        f"type=bind,source={checkout},target=/workspace,readonly",
        f"type=bind,source={checkout}/dataset_dumps,target=/workspace/dataset_dumps",
        f"type=bind,source={checkout}/runs,target=/workspace/runs",
    ]
    assert contents(checkout) == ["docker_run.sh"], "a dry run makes nothing"
    assert docker_run("train", "a.cfg").returncode == 0
    assert contents(checkout) == ["dataset_dumps", "docker_run.sh", "runs"]


def test_docker_run_takes_other_folders_and_images(docker_run: Run, tmp_path: Path) -> None:
    words = planned(
        docker_run,
        *("--network", "none", "true"),
        LVAE_DUMPS=f"{tmp_path}/big disk/dumps",
        LVAE_RUNS=f"{tmp_path}/big disk/runs",
        LVAE_IMAGE="here/mine:2",
        LVAE_SHM="8g",
    )
    assert f"type=bind,source={tmp_path}/big disk/dumps,target=/workspace/dataset_dumps" in words
    assert f"type=bind,source={tmp_path}/big disk/runs,target=/workspace/runs" in words
    assert words[words.index("--network") + 1] == "none"
    assert words[words.index("--hostname") + 1] + ":127.0.0.1" == words[words.index("--add-host") + 1]
    assert words[words.index("--shm-size") + 1] == "8g"
    assert inside(words, "here/mine:2") == ["true"]


def test_docker_run_is_the_caller_without_privileges(docker_run: Run) -> None:
    words = planned(docker_run, "true")
    assert words[words.index("--user") + 1] == f"{os.getuid()}:{os.getgid()}"
    assert words[words.index("--cap-drop") + 1] == "ALL"
    assert {"--rm", "--init", "no-new-privileges", "--read-only"} <= set(words)
    assert not {"--tty", "--privileged", "--publish", "--network"} & set(words)


def test_docker_run_uses_gpus_where_there_are_any(docker_run: Run, tmp_path: Path) -> None:
    without = docker_run("--dry-run", "true")
    assert "--gpus" not in without.stdout
    assert "running on the CPU" in without.stderr
    stub(tmp_path / "bin", "nvidia-smi", "echo 'GPU 0: Something'")
    words = planned(docker_run, "true")
    assert words[words.index("--gpus") + 1] == "all"
    assert "--gpus" not in planned(docker_run, "true", LVAE_GPUS="none")
    words = planned(docker_run, "true", LVAE_GPUS="device=1")
    assert words[words.index("--gpus") + 1] == "device=1"
    words = planned(docker_run, "true", LVAE_GPUS="device=0,1")
    assert words[words.index("--gpus") + 1] == '"device=0,1"', "or Docker takes the 1 for a key of its own"


def test_docker_run_hands_on_what_several_nodes_need(docker_run: Run) -> None:
    wanted = {"NCCL_SOCKET_IFNAME": "eth1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "2"}
    words = planned(docker_run, "true", **wanted, MY_SECRET="x", XNCCL_DEBUG="1")
    given = {words[i + 1] for i, word in enumerate(words) if word == "--env"}
    assert given >= wanted.keys()
    assert not given & {"MY_SECRET", "XNCCL_DEBUG"}


def test_docker_run_says_what_is_missing(docker_run: Run, tmp_path: Path) -> None:
    stub(tmp_path / "bin", "docker", "exit 1")
    result = docker_run("true")
    assert result.returncode == 2
    assert "docker build -f build/Dockerfile -t lvae_torch ." in result.stderr
    assert docker_run("--nonsense").returncode == 2
    assert docker_run("--network").returncode == 2
    assert "comma" in docker_run("--dry-run", "true", LVAE_RUNS="/a,b").stderr


def test_docker_run_passes_status_and_signals_on(docker_run: Run, checkout: Path) -> None:
    stub(checkout.parent / "bin", "docker", "[[ $1 == image ]] || exit 75")
    assert docker_run("true").returncode == 75
    stub(
        checkout.parent / "bin",
        "docker",
        '[[ $1 == image ]] && exit; trap "exit 7" TERM; echo ready; while :; do sleep 0.05; done',
    )
    env = os.environ | {"PATH": f"{checkout.parent / 'bin'}:{os.environ['PATH']}"}
    with subprocess.Popen([str(checkout / "docker_run.sh"), "true"], stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 7


# --- both -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["reset.sh", "docker_run.sh"])
def test_scripts_explain_themselves(repository: Path, script: str) -> None:
    result = subprocess.run([str(repository / script), "--help"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0
    assert f"./{script} [" in result.stdout or f"./{script} NAME" in result.stdout
    assert "#" not in result.stdout and "set -euo" not in result.stdout
