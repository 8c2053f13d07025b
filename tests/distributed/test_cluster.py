"""Templates of ``build/cluster/``: what they start and how they stop. Stand-ins for SLURM and ssh."""

import os
import re
import shlex
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from shell import stub

from lvae_torch.distributed.processes import Processes
from lvae_torch.hparams import load
from lvae_torch.training.wrapping import check_processes

TRAINING = """echo "$0" "$@"; trap 'echo saved; exit 1' TERM; for i in $(seq 200); do sleep 0.05; done"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with a space in its name and a torchrun that runs for 10 seconds, or saves when asked to stop."""
    folder = tmp_path / "my checkout"
    (folder / ".venv").mkdir(parents=True)
    stub(folder / ".venv" / "bin", "torchrun", TRAINING)
    return folder


def environment(checkout: Path, **variables: str) -> dict[str, str]:
    """Where stand-ins are found, and temporary files go with the test's own: a script that is killed leaves some."""
    places = {"PATH": f"{checkout.parent / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(checkout.parent)}
    return os.environ | places | variables


def wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + 30
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < deadline, path.read_text() if path.exists() else f"no {path}"
        time.sleep(0.05)


# --- SLURM ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def slurm(checkout: Path) -> dict[str, str]:
    """The environment of a batch script; ``scancel`` and ``scontrol`` do their part and write down that they did."""
    binaries, said = checkout.parent / "bin", shlex.quote(str(checkout.parent / "said"))
    stub(binaries, "srun", f'[[ $1 == --cpus-per-task=16 ]] && shift; "$@" & echo $! > {said}.pid; wait $!')
    stub(binaries, "scancel", f'echo scancel "$@" >> {said}; kill -TERM $(< {said}.pid)')
    stub(binaries, "scontrol", f'[[ $1 == show ]] && printf "a1\\na2\\n" || echo scontrol "$@" >> {said}')
    job = {"SLURM_JOB_ID": "12007", "SLURM_JOB_NODELIST": "a[1-2]", "SLURM_JOB_NUM_NODES": "2"}
    return environment(checkout, **job, SLURM_CPUS_PER_TASK="16")


def sbatch(repository: Path, checkout: Path, slurm: dict[str, str], *arguments: str) -> "subprocess.Popen[bytes]":
    with open(checkout / "log", "wb") as log:
        command = ["bash", str(repository / "build" / "cluster" / "slurm.sbatch"), *arguments]
        return subprocess.Popen(command, cwd=checkout, env=slurm, stdout=log, stderr=log)


def test_slurm_stops_before_the_limit_and_is_requeued(repository: Path, checkout: Path, slurm: dict[str, str]) -> None:
    process = sbatch(repository, checkout, slurm, "a.cfg", "--set", "run.name=a b")
    wait_for(checkout / "log", "-m lvae_torch.train a.cfg --set run.name=a b")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=30) == 1
    assert (checkout.parent / "said").read_text() == "scancel --signal=TERM 12007\nscontrol requeue 12007\n"
    log = (checkout / "log").read_text()
    assert "saved" in log
    for part in ("--nnodes=2", "--rdzv-backend=c10d", "--rdzv-endpoint=a1:29407", "--rdzv-id=12007-0"):
        assert f" {part} " in log


@pytest.mark.parametrize("status", [0, 1])
def test_slurm_ends_as_the_run_does(repository: Path, checkout: Path, slurm: dict[str, str], status: int) -> None:
    stub(checkout / ".venv" / "bin", "torchrun", f"exit {status}")
    assert sbatch(repository, checkout, slurm, "a.cfg").wait(timeout=30) == status
    assert not (checkout.parent / "said").exists(), "a run that finished or failed is not requeued"


# --- ssh --------------------------------------------------------------------------------------------------------------


def ssh(repository: Path, checkout: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start ssh.sh; its ``ssh`` runs here what it should run there, as ssh does: by a shell, in one string."""
    stub(checkout.parent / "bin", "ssh", 'host=${@: -2:1}; exec sh -c "${@: -1}" > "$host.log" 2>&1')
    command = [str(repository / "build" / "cluster" / "ssh.sh"), "--dir", str(checkout), *arguments]
    # Ctrl-C reaches it also where these tests run in the background of a shell, which has such jobs ignore it.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, cwd=checkout, env=environment(checkout), stderr=subprocess.PIPE, preexec_fn=heard)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda s: s.name)
def test_ssh_starts_all_hosts_and_stops_them(repository: Path, checkout: Path, end: signal.Signals) -> None:
    """Also when it is killed itself, for then its end of the connections closes."""
    process = ssh(repository, checkout, "--nproc", "3", "me@b1", "b2", "--", "a.cfg", "--set", "run.name=it's (a)")
    for host in ("me@b1", "b2"):
        wait_for(checkout / f"{host}.log", "-m lvae_torch.train a.cfg --set run.name=it's (a)")
    process.send_signal(end)
    assert process.wait(timeout=30) == (-9 if end == signal.SIGKILL else 1)
    assert len([*checkout.parent.glob("tmp.*")]) == (end == signal.SIGKILL), "else it tidies up"
    for host in ("me@b1", "b2"):
        wait_for(checkout / f"{host}.log", "saved")
        said = (checkout / f"{host}.log").read_text()
        assert "--nnodes=2 " in said and "--rdzv-endpoint=b1:" in said and "--nproc_per_node=3 " in said
    assert process.stderr is not None
    process.stderr.close()


def meeting(repository: Path, checkout: Path, *arguments: str) -> str:
    """Where and under which name the hosts of a run meet.

    The place is one of a thousand, drawn by the folder too: a name that is the same for every temporary folder.
    """
    stub(checkout / ".venv" / "bin", "torchrun", 'echo "$0" "$@"')
    process = ssh(repository, checkout, "--dir", ".", *arguments)
    assert (process.communicate(timeout=30)[1], process.returncode) == (b"", 0)
    said = [(checkout / f"{host}.log").read_text() for host in ("b1", "b2")]
    found = [re.findall(r"--rdzv-(?:endpoint|id)=(\S+)", text) for text in said]
    assert found[0] == found[1] and len(found[0]) == 2
    return " ".join(found[0])


def test_another_run_on_the_same_hosts_meets_elsewhere(repository: Path, checkout: Path) -> None:
    one, other = (meeting(repository, checkout, "b1", "b2", "--", cfg) for cfg in ("a.cfg", "b.cfg"))
    assert set(one.split()).isdisjoint(other.split())
    joining = meeting(repository, checkout, "--nodes", "1:2", "--join", "b1", "b2", "b1", "--", "a.cfg")
    assert joining == one, "who joins comes to the same place"
    assert "b1:123 " in meeting(repository, checkout, "--port", "123", "b1", "b2", "--", "a.cfg")


@pytest.mark.parametrize("nodes", [(), ("--nodes", "1:2")], ids=["fixed", "elastic"])
def test_a_host_that_fails_ends_a_run_that_needs_all(repository: Path, checkout: Path, nodes: tuple[str, ...]) -> None:
    first = shlex.quote(str(checkout.parent / "first"))
    fail = f"mkdir {first} 2>/dev/null && {{ until [[ -e {first}/other ]]; do sleep 0.05; done; exit 3; }}"
    train = "trap 'echo saved; exit 1' TERM; touch " + first + "/other; for i in $(seq 40); do sleep 0.05; done"
    stub(checkout / ".venv" / "bin", "torchrun", f"{fail}; {train}")
    process = ssh(repository, checkout, *nodes, "b1", "b2", "--", "a.cfg")
    errors = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 3
    said = "".join((checkout / f"{host}.log").read_text() for host in ("b1", "b2"))
    assert ("saved" in said) == (not nodes)
    assert errors.count("ended with status") == (1 if nodes else 2), errors


def test_ssh_gives_the_status_of_the_first_that_failed(repository: Path, checkout: Path) -> None:
    stub(checkout / ".venv" / "bin", "torchrun", "exit 3")
    process = ssh(repository, checkout, "b1", "b2", "--", "a.cfg")
    errors = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 3
    assert " ended with status 3" in errors.splitlines()[0]


@pytest.mark.parametrize("arguments", [[], ["b1"], ["--", "a.cfg"], ["--nproc"], ["--join", "b1", "b2", "--", "a.cfg"]])
def test_ssh_says_how_it_is_used(repository: Path, checkout: Path, arguments: list[str]) -> None:
    process = ssh(repository, checkout, *arguments)
    assert b"ssh.sh: " in process.communicate(timeout=30)[1]
    assert process.returncode == 2


# --- Kubernetes, Compose ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pytorchjob.yaml", "trainjob.yaml"])
def test_pods_have_no_privileges_and_end_in_time(repository: Path, name: str) -> None:
    text = (repository / "build" / "cluster" / name).read_text()
    for part in ("runAsNonRoot: true", "readOnlyRootFilesystem: true", "allowPrivilegeEscalation: false", "[ALL]"):
        assert part in text
    times = [re.search(pattern, text) for pattern in (r"--shutdown-timeout=(\d+)", r"GracePeriodSeconds: (\d+)")]
    shutdown, grace = (int(found[1]) for found in times if found is not None)
    assert shutdown < grace, "or Kubernetes kills before torchrun does"


def test_every_number_of_pods_divides_the_batch(repository: Path) -> None:
    text = (repository / "build" / "cluster" / "pytorchjob.yaml").read_text()
    cfg, each, least, most = (
        re.findall(pattern, text)[0]
        for pattern in (r"args: \[(\S+)\]", r'nprocPerNode: "(\d+)"', r"minReplicas: (\d+)", r"maxReplicas: (\d+)")
    )
    settings = load(repository / cfg)
    for pods in range(int(least), int(most) + 1):
        check_processes(settings.train, Processes(0, pods * int(each), torch.device("cpu")))


def test_compose_opens_a_port_on_this_machine_only(repository: Path) -> None:
    text = (repository / "compose.yaml").read_text()
    assert re.findall(r"ports: (.*)", text) == ['["127.0.0.1:6006:6006"]']
    assert "privileged" not in text and "cap_drop: [ALL]" in text and "read_only: true" in text


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="SLURM's daemon of this test is root's")
def test_a_real_slurm_takes_the_script(repository: Path) -> None:
    """``sbatch --test-only``, which places it on two nodes; and refuses more GPUs than they have."""

    def asked(*options: str) -> "subprocess.CompletedProcess[str]":
        script = repository / "build" / "slurm_dry.sh"
        return subprocess.run([script, *options], capture_output=True, text=True, timeout=100)

    answer = asked()
    if answer.returncode == 3:
        pytest.skip(answer.stderr)
    assert answer.returncode == 0 and "on nodes node[0-1]" in answer.stderr, answer
    assert asked("--gpus-per-node=5").returncode == 1
