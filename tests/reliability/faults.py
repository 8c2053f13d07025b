"""What the tests of faults share: a tiny run, its starts, what it left, and small disks."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import small
from nursery import HUNG, REPOSITORY, Child, Nursery, Patch
from running import assert_same_bits

from lvae_torch.files import read_json
from lvae_torch.runs.checkpoints import CheckpointStore
from lvae_torch.runs.folder import RunFolder

Figure = Callable[[str, str], None]
TINY = """
[run]
name = small
device = cpu
[data]
dataset = small
[model]
family = vae
network = dense
likelihood = bernoulli
z_dim = 2
widths = [16]
[train]
steps = 20
batch_size = 8
log_every = 1
checkpoint_every = 2
[val]
every = 3
images = 0
batch_size = 5
"""


@dataclass(frozen=True)
class Place:
    """A folder with dumps, runs, and two cfgs: ``tiny.cfg`` with fast steps, ``small.cfg`` with all parts."""

    nursery: Nursery
    folder: Path

    @classmethod
    def make(cls, nursery: Nursery, folder: Path) -> "Place":
        (folder / "tiny.cfg").write_text(TINY)
        (folder / "small.cfg").write_text(small.CFG)
        return cls(nursery, folder)

    def run(self, name: str) -> RunFolder:
        return RunFolder(self.folder / "runs", name)

    def status(self, name: str) -> dict[str, Any]:
        status: dict[str, Any] = read_json(self.run(name).status_json)
        return status

    def arguments(self, name: str, cfg: str = "tiny", **overrides: Any) -> list[str]:
        sets = small.override_list(self.folder, {"run__name": name, **overrides})
        return [str(self.folder / f"{cfg}.cfg"), *(part for item in sets for part in ("--set", item))]

    def start(
        self,
        name: str,
        cfg: str = "tiny",
        patches: Sequence[Patch] = (),
        command: str = "train",
        environment: Mapping[str, str] | None = None,
        modes: Sequence[str] = (),
        **overrides: Any,
    ) -> Child:
        arguments = [*self.arguments(name, cfg, **overrides), *(part for mode in modes for part in ("--mode", mode))]
        log = self.folder / f"{name}.log"
        return self.nursery.start(command, arguments, log, patches, environment)

    def start_ranks(self, name: str, world: int, cfg: str = "tiny", **overrides: Any) -> list[Child]:
        """As many as ``torchrun`` would start."""
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "GLOO_SOCKET_IFNAME": "lo"}
        return [
            self.start(name, cfg, environment={**shared, **rank_of(rank, world)} if world > 1 else {}, **overrides)
            for rank in range(world)
        ]

    def finish(self, name: str, cfg: str = "tiny", world: int = 1, seconds: float = HUNG, **overrides: Any) -> None:
        """Start it, undisturbed, and wait for its end, so many seconds at most."""
        for child in self.start_ranks(name, world, cfg, **overrides):
            assert child.wait(seconds) == 0, child.said

    def checkpoint(self, name: str) -> dict[str, Any]:
        return CheckpointStore(self.run(name).checkpoints).load("last")

    def newest_step(self, name: str) -> int:
        """The step that a start now would go on from; a checkpoint that is not whole fails the test."""
        state = CheckpointStore(self.run(name).checkpoints).load_newest(pytest.fail)
        return 0 if state is None else int(state["state"]["step"])

    def assert_same(self, one: str, other: str) -> None:
        """Equal checkpoints, to the bit, and equal histories."""
        assert_same_bits(self.checkpoint(one), self.checkpoint(other))
        assert history(self.run(one)) == history(self.run(other))

    def wait_for_lines(self, name: str, child: "Child | Launched", n: int = 1) -> None:
        """Until the run has told ``n`` numbers more than it has now."""
        path = self.run(name).metrics_jsonl
        wanted, deadline = n_lines(path) + n, time.monotonic() + HUNG
        while n_lines(path) < wanted:
            assert time.monotonic() < deadline, child.said
            time.sleep(0.002)


@dataclass(frozen=True)
class Launched:
    """A command of its own that runs, used as a ``Child`` is."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = HUNG) -> int:
        return self.process.wait(seconds)

    @property
    def said(self) -> str:
        return self.log.read_text()


def launch(place: Place, name: str, launcher: Sequence[str], **overrides: Any) -> Launched:
    """``python LAUNCHER -m lvae_torch.train ...``, from the beginning of the interpreter."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, *launcher, "-m", "lvae_torch.train", *place.arguments(name, **overrides)]
    log = place.folder / f"{name}.log"
    with open(log, "ab") as file:
        return Launched(subprocess.Popen(command, env=environment, stdout=file, stderr=file), log)


def torchrun(place: Place, name: str, *options: str, **overrides: Any) -> Launched:
    """Two processes on this host."""
    fixed = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc_per_node=2"]
    return launch(place, name, [*fixed, *options], **overrides)


def n_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def rank_of(rank: int, world: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def history(folder: RunFolder) -> list[dict[str, Any]]:
    """What ``metrics.jsonl`` says, but for times."""
    varying = ("time", "speed/", "crc32")
    lines = folder.metrics_jsonl.read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(varying)} for line in lines]


def rounds(default: int) -> int:
    """How often a random fault is repeated: ``FAULT_ROUNDS`` times, if that is set."""
    return int(os.environ.get("FAULT_ROUNDS", default))


def seconds_of_a_start(place: Place) -> float:
    """How long a start with a few steps takes here and now."""
    began = time.monotonic()
    place.finish("timed", train__steps=6)
    shutil.rmtree(place.run("timed").path)
    return time.monotonic() - began


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of ``size`` (as ``mount`` takes it) on ``folder``; needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave: int = 0) -> Path:
    """A file that takes all of the disk but ``leave`` bytes."""
    path = folder / "filler"
    free = shutil.disk_usage(folder).free - leave
    path.write_bytes(bytes(free))
    return path


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def cut(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def zero(path: Path, rng: random.Random) -> None:
    """A block, as disks lose them."""
    data = bytearray(path.read_bytes())
    first = rng.randrange(len(data))
    data[first : first + 512] = bytes(len(data[first : first + 512]))
    path.write_bytes(data)


DAMAGES = (flip, cut, zero)
