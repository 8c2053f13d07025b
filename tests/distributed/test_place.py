"""Where a process stands, and on what it computes: environments of all kinds, drivers without GPUs, Apple's."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import small
import torch

from lvae_torch.data.labelled import Labelled
from lvae_torch.distributed import place
from lvae_torch.distributed.memory import is_out_of_memory, memory_of
from lvae_torch.distributed.place import Standing, choose_device, device_told, float64_device, n_cores
from lvae_torch.distributed.processes import Processes
from lvae_torch.elbo.evaluation import evaluate
from lvae_torch.errors import CfgError

FULL = {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("environment", "standing"),
    [
        ({}, Standing()),
        ({"RANK": "", "WORLD_SIZE": " "}, Standing()),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Standing()),
        (FULL, Standing(0, 1, 2)),
        ({**FULL, "LOCAL_RANK": ""}, Standing(0, 1, 2)),
    ],
)
def test_standings(environment: dict[str, str], standing: Standing) -> None:
    assert Standing.of(environment) == standing


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "1"}, "has RANK = 1, but no WORLD_SIZE"),
        ({"LOCAL_RANK": "3"}, "has LOCAL_RANK = 3, but no WORLD_SIZE"),
        ({"RANK": "0", "WORLD_SIZE": ""}, "has RANK = 0, but no WORLD_SIZE"),
        ({**FULL, "RANK": ""}, "WORLD_SIZE = 2, but no RANK"),
        ({**FULL, "RANK": "2"}, "RANK = 2 and WORLD_SIZE = 2, which cannot be"),
        ({**FULL, "RANK": "-1"}, "which cannot be"),
        ({**FULL, "WORLD_SIZE": "0"}, "which cannot be"),
        ({**FULL, "WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'; it must be a whole number"),
        ({**FULL, "MASTER_ADDR": ""}, "but no MASTER_ADDR:"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "but no MASTER_ADDR and no MASTER_PORT"),
        ({**FULL, "MASTER_PORT": "0"}, "a port is a number from 1 to 65535"),
        ({**FULL, "MASTER_PORT": "http"}, "MASTER_PORT is 'http'"),
    ],
)
def test_half_an_environment_is_refused_with_what_to_do(environment: dict[str, str], message: str) -> None:
    with pytest.raises(CfgError, match=message):
        Standing.of(environment)


def test_the_command_says_so_in_one_message(tmp_path: Path, repository: Path) -> None:
    small.write_dump(tmp_path / "dumps")
    (tmp_path / "small.cfg").write_text(small.CFG)
    sets = [part for item in small.override_list(tmp_path) for part in ("--set", item)]
    line = [sys.executable, "-m", "lvae_torch.train", str(tmp_path / "small.cfg"), *sets]
    result = subprocess.run(
        line, cwd=repository, env=os.environ | {"RANK": "1"}, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    assert "unset RANK LOCAL_RANK WORLD_SIZE" in result.stderr and not (tmp_path / "runs").exists()


def test_the_device_and_why_it_is_that(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(place, "has_driver", lambda: False)
    assert device_told(cpu, "cpu", 2) == "device: cpu, 1 thread, 2 processes; [run] device = cpu"
    assert device_told(cpu, "auto").endswith("[run] device = auto, and PyTorch finds no NVIDIA GPU")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device_told(cpu, "auto").endswith("; [run] device = mps takes Apple's GPU")
    monkeypatch.setattr(place, "has_driver", lambda: True)
    told = device_told(cpu, "auto")
    assert told.startswith("WARNING: device: cpu") and "has an NVIDIA driver" in told
    assert not device_told(cpu, "cpu").startswith("WARNING"), "as asked for"


def test_apples_gpu_by_a_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is none here: that it is chosen when it is there, and that its sums are made where float64 is known."""
    with pytest.raises(CfgError, match=r"device = mps, but PyTorch finds no GPU of Apple's"):
        choose_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("mps") == torch.device("mps")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu"), "only where it is asked for"
    assert float64_device(torch.device("mps")) == torch.device("cpu")


def test_an_evaluation_makes_float64_only_where_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without float64 is played by the CPU, with ``meta`` as the place where there is float64."""
    model, x = small.model().eval(), small.images(4)
    whole = evaluate(model, [(0, Labelled(x))], Processes(0, 1, torch.device("cpu")), seed=0, iw_samples=2)
    asked, names = set[str](), ("passes", "units", "bounds")

    def elsewhere(device: torch.device, name: str) -> torch.device:
        asked.add(name)
        return torch.device("cpu")

    for name in names:
        monkeypatch.setattr(f"lvae_torch.elbo.{name}.float64_device", partial(elsewhere, name=name))
    again = evaluate(model, [(0, Labelled(x))], Processes(0, 1, torch.device("cpu")), seed=0, iw_samples=2)
    assert again.scalars(64) == whole.scalars(64)
    assert asked == set(names), "sums, units and the bound ask for a place of their own"


def test_a_system_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    assert n_cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert n_cores() == 6


@pytest.mark.parametrize(
    ("reason", "is_it"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 9 bytes"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(reason: BaseException, is_it: bool) -> None:
    assert is_out_of_memory(reason) == is_it


def test_pytorch_says_so_itself() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**48)
    assert is_out_of_memory(caught.value)


def test_memory_of_this_machine() -> None:
    total = SimpleNamespace(**{"bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")})
    assert 2**28 < memory_of(torch.device("cpu")) <= total.bytes
