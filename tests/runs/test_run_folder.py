"""The run folder: names that cannot leave it, one process at a time, and a status that others can read."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lvae_torch.errors import CfgError, DataError
from lvae_torch.runs.folder import RunFolder

HOLD_THE_LOCK = """
import sys, time
from pathlib import Path
from lvae_torch.runs.folder import RunFolder
with RunFolder(Path(sys.argv[1]), "mnist").lock():
    print("locked", flush=True)
    time.sleep(60)
"""


@contextmanager
def owner(runs: Path, repository: Path, script: str = HOLD_THE_LOCK) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the run ``mnist``."""
    command = [sys.executable, "-c", script, str(runs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "locked\n"
            yield process
        finally:
            process.kill()


def test_paths(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "mnist")
    paths = [
        *(folder.path, folder.hparams_cfg, folder.status_json, folder.metrics_jsonl, folder.tensorboard),
        *(folder.checkpoints, folder.lock_file, folder.synthesis("generation")),
    ]
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        *("mnist", "mnist/hparams.cfg", "mnist/status.json", "mnist/metrics.jsonl", "mnist/tensorboard"),
        *("mnist/checkpoints", "mnist/run.lock", "mnist/synthesis/generation"),
    ]
    assert not any(tmp_path.iterdir()), "naming a run makes nothing"


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "/etc", "../a", "-rf", ".git", "a b", "a\n", "ü", "a" * 129])
def test_no_name_leaves_the_folder_of_runs(tmp_path: Path, name: str) -> None:
    with pytest.raises(CfgError, match=r"\[run\] name"):
        RunFolder(tmp_path, name)
    with pytest.raises(CfgError, match="mode"):
        RunFolder(tmp_path, "mnist").synthesis(name)


def test_a_second_process_is_refused_and_told_who_holds_the_run(tmp_path: Path, repository: Path) -> None:
    with (
        owner(tmp_path, repository) as process,
        pytest.raises(CfgError, match=rf"mnist: in use by process {process.pid} on {socket.gethostname()}\."),
        RunFolder(tmp_path, "mnist").lock(),
    ):
        pytest.fail("two processes hold one run")


def test_a_killed_owner_leaves_no_lock_behind(tmp_path: Path, repository: Path) -> None:
    folder = RunFolder(tmp_path, "mnist")
    with owner(tmp_path, repository) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with folder.lock():
            assert folder.lock_file.read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"


HOLD_AS_ANOTHER_HOST = HOLD_THE_LOCK.replace("import sys, time", "import socket, sys, time").replace(
    "with RunFolder", "socket.gethostname = lambda: 'node7'\nwith RunFolder"
)


def test_the_lock_of_a_host_that_may_have_crashed_is_waited_for(
    tmp_path: Path, repository: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shared file system lets go of a dead host's lock only after a while."""
    folder, looks = RunFolder(tmp_path, "mnist"), []
    with owner(tmp_path, repository, HOLD_AS_ANOTHER_HOST) as process:

        def pause(seconds: float) -> None:
            looks.append(seconds)
            if len(looks) == 2:
                process.kill()
                process.wait()

        monkeypatch.setattr("lvae_torch.runs.locks.time.sleep", pause)
        with folder.lock():
            assert process.poll() is not None and len(looks) == 2
    assert f"process {process.pid} on node7; waiting up to 180 s" in capfd.readouterr().err


def test_another_hosts_lock_is_not_waited_for_without_end(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lvae_torch.runs.locks.PATIENCE", 0.6)
    with (
        owner(tmp_path, repository, HOLD_AS_ANOTHER_HOST),
        pytest.raises(CfgError, match="on node7"),
        RunFolder(tmp_path, "mnist").lock(),
    ):
        pytest.fail("two processes hold one run")


def test_what_a_kill_left_half_written_is_no_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "mnist")
    folder.checkpoints.mkdir(parents=True)
    for name in ("step_00000001.pt", "step_00000001.pt.tmp", "step_00000001.json.tmp"):
        (folder.checkpoints / name).touch()
        assert not folder.has_checkpoints, name
    (folder.checkpoints / "step_00000001.json.damaged").touch()
    assert folder.has_checkpoints


def test_the_lock_can_be_taken_again_and_leaves_other_runs_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "mnist")
    for _ in range(2):
        with folder.lock(), RunFolder(tmp_path, "other").lock(), pytest.raises(CfgError, match="in use"), folder.lock():
            pytest.fail("held twice")


def test_runs_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(DataError, match=r"runs/mnist: cannot be written"), RunFolder(tmp_path / "runs", "mnist").lock():
        pytest.fail("locked")


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr("lvae_torch.runs.locks.os.write", full)
        with (
            pytest.raises(DataError, match=r"run\.lock: cannot be written \(No space"),
            RunFolder(tmp_path, "m").lock(),
        ):
            pytest.fail("locked")
    with RunFolder(tmp_path, "m").lock():
        pass


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(DataError, match=r"run\.lock: cannot be locked \(No locks"), RunFolder(tmp_path, "mnist").lock():
        pytest.fail("locked")


def test_status(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "mnist")
    folder.path.mkdir()
    folder.write_status("running", 0)
    folder.write_status("preempted", 12, "stopped by SIGTERM")
    status = json.loads(folder.status_json.read_text())
    age = datetime.now(UTC) - datetime.fromisoformat(status.pop("time"))
    assert 0 <= age.total_seconds() < 60
    assert status == {
        "state": "preempted",
        "step": 12,
        "message": "stopped by SIGTERM",
        "host": socket.gethostname(),
        "process": os.getpid(),
    }
    assert [path.name for path in folder.path.iterdir()] == ["status.json"]
