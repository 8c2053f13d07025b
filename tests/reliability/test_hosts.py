"""Two hosts train one run, and lose a process, a host, or the link between them."""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import small
from conftest import Figure
from hosts import Hosts, hosts, needs_root
from running import assert_same_bits, checkpoint

from lvae_torch.files import read_json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), needs_root]

STEPS = 60
WORKER = " -u -m lvae_torch.train"  # the agent's own command line has no -u
PLAN = {"train__steps": STEPS, "train__log_every": 1, "train__checkpoint_every": 5, "val__every": 0, "val__images": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hosts")
    small.write_dump(folder / "dumps")
    (folder / "small.cfg").write_text(small.CFG)
    return folder


@pytest.fixture
def two(folder: Path, tmp_path: Path, repository: Path) -> Iterator[Hosts]:
    with hosts(2, tmp_path, {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(folder: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The last checkpoint of a run on two hosts to which nothing happened."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}
    with hosts(2, tmp_path_factory.mktemp("quiet"), environment) as made:
        finish(made, [start(made, folder, host, "undisturbed") for host in (0, 1)])
    return checkpoint(folder, "undisturbed")


TRAIN = ("-m", "lvae_torch.train")


def start(
    made: Hosts,
    folder: Path,
    host: int,
    name: str,
    nodes: str = "2",
    restarts: int = 3,
    program: Sequence[str] = TRAIN,
    **overrides: Any,
) -> Popen[bytes]:
    """torchrun's agent with one process, as docs/cluster.md starts it."""
    meet = ["--rdzv-backend=c10d", "--rdzv-endpoint=node0:29400", "--rdzv-id=job", f"--max-restarts={restarts}"]
    launch = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}", "--nproc_per_node=1", *meet]
    wanted = small.override_list(folder, {"run__name": name, **PLAN, **overrides})
    sets = [word for item in wanted for word in ("--set", item)]
    return made.start(host, [*launch, *program, str(folder / "small.cfg"), *sets])


def finish(made: Hosts, agents: list[Popen[bytes]]) -> None:
    """Wait for both; what they said is shown if one failed."""
    statuses = [agent.wait(timeout=400) for agent in agents]
    assert statuses == [0, 0], "\n".join(made.log(host).read_text()[-3000:] for host in (0, 1))


def steps(folder: Path, name: str) -> list[int]:
    """Those that were logged."""
    path = folder / "runs" / name / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["step"] for line in lines if '"train/loss"' in line]


def wait_for(what: str, seconds: float, is_so: Any) -> float:
    """Until it is so; how long that took."""
    start = time.monotonic()
    while not is_so():
        assert time.monotonic() - start < seconds, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)
    return time.monotonic() - start


def wait_for_step(folder: Path, name: str, step: int) -> None:
    wait_for(f"step {step} of {name}", 300, lambda: len(steps(folder, name)) >= step)


def worlds(two: Hosts) -> list[str]:
    """How many processes there are, as the trainers of both hosts have been told."""
    told = []
    for pid in (pid for host in (0, 1) for pid in two.pids(host, WORKER)):
        with suppress(OSError):  # it has ended
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            told += [variable[11:].decode() for variable in variables if variable.startswith(b"WORLD_SIZE=")]
    return told


def test_a_worker_killed(two: Hosts, folder: Path, undisturbed: dict[str, Any], figure: Figure) -> None:
    """Both hosts' workers start again from the last checkpoint: the same weights as if nothing had happened."""
    agents = [start(two, folder, host, "worker") for host in (0, 1)]
    wait_for_step(folder, "worker", 22)
    two.kill(1, WORKER)
    again = time.monotonic()
    finish(two, agents)
    assert_same_bits(checkpoint(folder, "worker"), undisturbed)
    assert steps(folder, "worker") == list(range(1, STEPS + 1))
    figure("one worker of two killed", f"finished {time.monotonic() - again:.0f} s later, same bits")


DYING = """
import os, signal
from lvae_torch.cli import main
from lvae_torch.distributed.roll_call import RollCall
from lvae_torch.train import command
RollCall.told_by_all = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
main(command)
"""


def test_a_worker_killed_at_the_start(two: Hosts, folder: Path, figure: Figure) -> None:
    """Before anything is trained, and with nothing to start it again: its agent ends, and tells the other nothing."""
    (folder / "dying.py").write_text(DYING)
    programs = TRAIN, (str(folder / "dying.py"),)
    agents = [start(two, folder, host, "early", restarts=0, program=programs[host]) for host in (0, 1)]
    assert agents[1].wait(timeout=200) == 1
    ended = wait_for("the end of the other", 30, lambda: agents[0].poll() is not None)
    assert agents[0].returncode == 1
    log = two.log(0).read_text()
    assert "lost the others: rank 1 (node1, process " in log and "exitcode  : 75" in log, log[-3000:]
    assert steps(folder, "early") == []
    figure("one worker of two killed at the start", f"the other ended {ended:.0f} s after torchrun of the first")


@pytest.mark.parametrize("step", [7, 22, 43])
def test_a_host_killed_and_brought_back(
    two: Hosts, folder: Path, undisturbed: dict[str, Any], figure: Figure, step: int
) -> None:
    name = f"host{step}"
    agents = [start(two, folder, host, name) for host in (0, 1)]
    wait_for_step(folder, name, step)
    two.kill(1)
    wait_for("the message", 60, lambda: "is silent" in two.log(0).read_text())
    assert "rank 1 (node1, process " in two.log(0).read_text()
    again = time.monotonic()
    finish(two, [agents[0], start(two, folder, 1, name)])
    assert_same_bits(checkpoint(folder, name), undisturbed)
    figure(
        f"host killed at step {step}", f"finished {time.monotonic() - again:.0f} s after it was brought back, same bits"
    )


def test_the_meeting_point_killed(two: Hosts, folder: Path, undisturbed: dict[str, Any], figure: Figure) -> None:
    """Without the first host nobody can go on; the others end soon, and all begin again with the same command."""
    agents = [start(two, folder, host, "first") for host in (0, 1)]
    wait_for_step(folder, "first", 22)
    two.kill(0)
    again = time.monotonic()
    assert agents[1].wait(timeout=120) == 1
    ended = time.monotonic() - again
    assert "nor does the node of rank 0 answer" in two.log(1).read_text()
    finish(two, [start(two, folder, host, "first") for host in (0, 1)])
    assert_same_bits(checkpoint(folder, "first"), undisturbed)
    figure("first host killed", f"the other ended {ended:.0f} s later; started again, same bits")


def test_an_elastic_run_goes_on_with_the_rest_and_lets_a_host_in(two: Hosts, folder: Path, figure: Figure) -> None:
    """2 -> 1 -> 2 processes: one continuous run, with the same global batch."""
    more = {"nodes": "1:2", "train__steps": 400}
    agents = [start(two, folder, host, "elastic", **more) for host in (0, 1)]
    wait_for_step(folder, "elastic", 22)
    two.kill(1)
    killed_at = len(steps(folder, "elastic"))
    alone = wait_for("alone", 200, lambda: len(steps(folder, "elastic")) > killed_at + 5)
    agents[1] = start(two, folder, 1, "elastic", **more)
    joined = wait_for("together", 200, lambda: worlds(two) == ["2", "2"])
    finish(two, agents)
    assert read_json(folder / "runs" / "elastic" / "status.json")["state"] == "finished"
    assert steps(folder, "elastic") == list(range(1, 401))
    figure(
        "--nnodes=1:2", f"alone again {alone:.0f} s after the kill; the host was let in {joined:.0f} s after its start"
    )


def test_a_link_cut_for_seconds(two: Hosts, folder: Path, undisturbed: dict[str, Any], figure: Figure) -> None:
    agents = [start(two, folder, host, "cut") for host in (0, 1)]
    cuts = (7, 22, 43)
    for step in cuts:
        wait_for_step(folder, "cut", step)
        two.link(1, "down")
        time.sleep(4)
        two.link(1, "up")
    finish(two, agents)
    assert_same_bits(checkpoint(folder, "cut"), undisturbed)
    assert "lost the others" not in two.log(0).read_text()
    figure(f"link cut for 4 s, {len(cuts)} times", "nothing lost, same bits")


def test_a_link_cut_for_good(two: Hosts, folder: Path, figure: Figure) -> None:
    """Both sides end their waiting, and say whom they miss."""
    for host in (0, 1):
        start(two, folder, host, "forever", train__timeout_minutes=0.3)
    wait_for_step(folder, "forever", 12)
    two.link(1, "down")
    waited = wait_for("the message", 120, lambda: "lost the others" in two.log(0).read_text())
    assert "rank 1 (node1, process " in two.log(0).read_text()
    wait_for("the other's message", 60, lambda: "nor does the node of rank 0 answer" in two.log(1).read_text())
    status = read_json(folder / "runs" / "forever" / "status.json")
    assert status["state"] == "failed" and "rank 1 (node1" in status["message"]
    figure("link cut for good, timeout_minutes = 0.3", f"rank 1 named after {waited:.0f} s")
