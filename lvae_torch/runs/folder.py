"""The folder of one run: its files, its lock and its status."""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from lvae_torch.files import check_name, write_json
from lvae_torch.runs.locks import held
from lvae_torch.runs.section import RunSection

RunState = Literal["running", "preempted", "finished", "failed"]


def runs_told(runs: Path) -> str:
    """The names of some of the runs in a folder, for the message that another one is not there."""
    there = sorted(path.parent.name for path in runs.glob("*/hparams.cfg"))
    return f"{runs} has {', '.join(there[:20])}" if there else f"{runs} has none"


@dataclass(frozen=True)
class RunFolder:
    """``<runs>/<name>/``.

    Raises:
        CfgError: if ``name`` could leave the folder of all runs.
    """

    runs: Path
    name: str

    @classmethod
    def of(cls, section: RunSection) -> "RunFolder":
        """The folder that ``[run]`` names."""
        return cls(Path(section.runs), section.name)

    def __post_init__(self) -> None:
        check_name(self.name, "[run] name")

    @property
    def path(self) -> Path:
        return self.runs / self.name

    @property
    def hparams_cfg(self) -> Path:
        return self.path / "hparams.cfg"

    @property
    def status_json(self) -> Path:
        return self.path / "status.json"

    @property
    def metrics_jsonl(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def has_checkpoints(self) -> bool:
        """Whether a checkpoint was ever saved, even if it is damaged now; half-written ones do not count."""
        return any(path.suffix.startswith((".json", ".damaged")) for path in self.checkpoints.glob("step_*.json*"))

    @property
    def lock_file(self) -> Path:
        return self.path / "run.lock"

    def synthesis(self, mode: str) -> Path:
        return self.path / "synthesis" / check_name(mode, "the mode")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run's lock for this process; the system releases it however the process ends.

        Raises:
            CfgError: naming the host and process that hold the lock.
            DataError: if the folder cannot be written.
        """
        with held(self.lock_file, self.path, "Wait for it, stop it, or choose another run.name."):
            yield

    def write_status(
        self,
        state: RunState,
        step: int,
        message: str = "",
        details: Mapping[str, Any] | None = None,
        durable: bool = True,
    ) -> None:
        """Replace ``status.json``, which people and wrappers read: torchrun hides exit statuses."""
        write_json(
            self.status_json,
            {
                "state": state,
                "step": step,
                "message": message,
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "host": socket.gethostname(),
                "process": os.getpid(),
                **(details or {}),
            },
            durable,
        )
