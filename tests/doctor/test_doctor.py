"""The doctor, on stand-ins for machines that lack one thing each."""

import fcntl
import json
import resource
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

from lvae_torch.distributed import cards as system
from lvae_torch.doctor import cards, machine, storage
from lvae_torch.doctor.__main__ import command, examine, lines
from lvae_torch.doctor.finding import Finding

Usage = namedtuple("Usage", "total used free")
REPOSITORY = Path(__file__).resolve().parents[2]


def one(findings: Any, subject: str) -> Finding:
    (found,) = [finding for finding in findings if finding.subject == subject]
    return found


@pytest.fixture
def no_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(system, "DRIVER", (tmp_path / "version",))
    monkeypatch.setattr(system, "SHOWN", ((tmp_path, "nvidia[0-9]*"),))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_this_machine_is_looked_at_as_a_user_would(tmp_path: Path) -> None:
    folders = ["--runs", str(tmp_path), "--dumps", str(tmp_path / "a")]
    result = subprocess.run(
        [sys.executable, "-m", "lvae_torch", "doctor", "--json", *folders],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    findings = [Finding(**item) for item in json.loads(result.stdout)]
    assert result.returncode == (2 if any(finding.level == "fault" for finding in findings) else 0), result.stderr
    assert torch.__version__.partition("+")[0] in one(findings, "versions").told
    assert {"processor", "threads", "shared memory", "driver", "runs", "dumps"} <= {f.subject for f in findings}
    assert not list(tmp_path.iterdir()), "it leaves nothing behind, and makes no folder"


def test_a_fault_ends_with_a_status_and_tells_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], no_cards: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        command(["--runs", str(tmp_path / "file" / "runs"), "--dumps", str(tmp_path)])
    out = capsys.readouterr().out
    assert ended.value.code == 2
    assert "fault    runs" in out and "-> Choose another folder by [run] runs." in out
    assert out.splitlines()[-1].endswith("1 fault") or "1 fault, " in out.splitlines()[-1]


def test_nothing_but_what_is_fine_goes_without_a_remedy() -> None:
    with pytest.raises(ValueError, match="needs a remedy"):
        Finding("a", "b", "warning")
    assert list(lines([Finding("a", "b"), Finding("cd", "e", "fault", "f.")])) == [
        "fine     a   b", "fault    cd  e", "             -> f.", "2 things looked at: 1 fault",
    ]  # fmt: skip


def test_every_finding_of_this_machine_is_one_line(tmp_path: Path) -> None:
    for finding in examine(tmp_path, tmp_path):
        assert "\n" not in finding.told + finding.remedy


class TestTheMachine:
    def test_shared_memory_that_is_small_or_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for total, level in ((2**30, "fine"), (64 * 2**20, "warning")):
            monkeypatch.setattr(machine.shutil, "disk_usage", lambda path, total=total: Usage(total, 0, total))
            assert machine.check_shared_memory().level == level
        monkeypatch.undo()
        monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path / "shm")
        assert machine.check_shared_memory().level == "fault"

    @pytest.mark.parametrize(
        ("limit", "has_infiniband", "level"),
        [
            (2**16, True, "warning"),
            (2**16, False, "fine"),
            (2**27, True, "fine"),
            (resource.RLIM_INFINITY, True, "fine"),
        ],
    )
    def test_locked_memory_matters_to_infiniband(
        self, limit: int, has_infiniband: bool, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(machine, "INFINIBAND", tmp_path)
        if has_infiniband:
            (tmp_path / "mlx5_0").mkdir()
        monkeypatch.setattr(machine.resource, "getrlimit", lambda which: (limit, limit))
        assert machine.check_locked_memory().level == level

    def test_no_compiler_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CC", raising=False)
        assert machine.check_compiler().level == "warning"
        (tmp_path / "mycc").write_text("#!/bin/sh\n")
        (tmp_path / "mycc").chmod(0o755)
        monkeypatch.setenv("CC", "mycc")
        assert machine.check_compiler() == Finding("C compiler", str(tmp_path / "mycc"))

    @pytest.mark.parametrize(
        ("text", "cores"), [("max 100000", None), ("150000 100000", 1.5), ("50000", 0.5), ("", None), (None, None)]
    )
    def test_a_containers_limit(
        self, text: str | None, cores: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(machine, "CPU_LIMIT", tmp_path / "cpu.max")
        if text is not None:
            (tmp_path / "cpu.max").write_text(f"{text}\n")
        assert machine.granted_cores() == cores

    def test_more_threads_than_a_limit_grants_are_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine, "n_cores", lambda: 8)
        monkeypatch.setattr(machine.torch, "get_num_threads", lambda: 8)
        for granted, level in ((None, "fine"), (8.0, "fine"), (2.5, "warning"), (0.5, "warning")):
            monkeypatch.setattr(machine, "granted_cores", lambda granted=granted: granted)
            found = one(machine.check_threads(), "threads")
            assert found.level == level
        assert "OMP_NUM_THREADS=1" in found.remedy

    def test_caches_that_cannot_be_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kept" / "here"))
        (tmp_path / "file").touch()
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
        monkeypatch.setattr(machine.os, "access", lambda path, mode: str(path) != str(tmp_path / "kept"))
        assert [found.level for found in machine.check_caches(tmp_path)] == ["fine", "fine"]
        (tmp_path / "kept").mkdir()
        inductor, triton = machine.check_caches(tmp_path)
        assert (inductor.level, triton.level) == ("warning", "fine")
        assert inductor.remedy == "Set TORCHINDUCTOR_CACHE_DIR to a folder of yours."

    def test_caches_are_beside_the_runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "mine"))
        found = [finding.told for finding in machine.check_caches(tmp_path)]
        beside = f"TORCHINDUCTOR_CACHE_DIR {tmp_path / '.compiled' / 'inductor'}"
        assert found == [beside, f"TRITON_CACHE_DIR {tmp_path / 'mine'}"]


class TestFolders:
    def test_a_folder_that_is_well(self, tmp_path: Path) -> None:
        (found,) = storage.check_folder("runs", tmp_path / "not" / "yet", "[run] runs")
        assert found.level in ("fine", "warning") and "GiB free" in found.told  # this disk may be nearly full
        assert not list(tmp_path.iterdir())

    def test_locks_that_keep_nobody_out(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fcntl, "flock", lambda file, how: None)
        faults = [f for f in storage.check_folder("runs", tmp_path, "[run] runs") if f.level == "fault"]
        assert [fault.told for fault in faults] == [f"{tmp_path}: files cannot be locked there"]

    def test_files_that_cannot_be_mapped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*arguments: Any, **options: Any) -> None:
            raise OSError(19, "No such device")

        monkeypatch.setattr(storage.mmap, "mmap", refuse)
        levels = [f.level for f in storage.check_folder("dumps", tmp_path, "[data] dumps") if "maps" in f.told]
        assert levels == ["warning"]

    def test_little_room_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(storage.shutil, "disk_usage", lambda path: Usage(2**40, 2**40 - 2**30, 2**30))
        (found,) = storage.check_folder("runs", tmp_path, "[run] runs")
        assert found.level == "warning" and "1.0 GiB free" in found.told


class TestCards:
    def test_no_card_is_fine(self, no_cards: Path) -> None:
        assert [finding.level for finding in cards.check_cards()] == ["fine", "fine"]

    def test_a_card_that_pytorch_does_not_use_is_a_fault(self, no_cards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        (no_cards / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu\n")
        (no_cards / "nvidia0").touch()
        driver, shown = cards.check_cards()
        assert (driver.level, shown.level) == ("fault", "fault")
        assert "550.54.14" in driver.told and "580" in driver.remedy
        assert shown.told == "the system shows 1, PyTorch uses 0"

    @pytest.mark.parametrize(
        ("capability", "free", "level"), [((7, 0), 16, "fault"), ((8, 0), 16, "fine"), ((8, 0), 12, "warning")]
    )
    def test_a_card_by_its_age_and_by_who_uses_it(
        self, capability: tuple[int, int], free: int, level: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "a card")
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80"])
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (free * 2**30, 16 * 2**30))
        found = cards.check_card(0)
        assert found.level == level and f"{free:.1f} of 16.0 GiB free" in found.told
