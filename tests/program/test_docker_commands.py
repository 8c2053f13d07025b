"""``docker_run.sh``: what it makes of the commands of a user."""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from shell import Run, contents, stub

# --- docker_run.sh ----------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """A checkout whose path has a space, and a PATH on which docker and nvidia-smi (no GPU) are stand-ins.

    ``TEST_BASH`` names another bash for the script, such as the 3.2 of macOS: docs/image.md.
    """
    folder = tmp_path / "my checkout"
    folder.mkdir()
    if old := os.environ.get("TEST_BASH"):
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "bash").symlink_to(old)
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
    prefixes = ("TORCHINDUCTOR", "TRITON", "PYTORCH", "CUDA", "CUBLAS")
    wanted |= {f"{prefix}_OPTION": "1" for prefix in prefixes}
    words = planned(docker_run, "true", **wanted, MY_SECRET="x", XNCCL_DEBUG="1", CUDA_HOME="/usr/local/cuda")
    given = {words[i + 1] for i, word in enumerate(words) if word == "--env"}
    assert given >= wanted.keys()
    assert not given & {"MY_SECRET", "XNCCL_DEBUG", "CUDA_HOME"}


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
