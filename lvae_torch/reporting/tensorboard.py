"""TensorBoard: the same numbers as curves, and the pictures."""

import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lvae_torch.reporting.reporter import writing_to

N_BINS = 64
EVENTS = re.compile(r"events\.out\.tfevents\.(\d+\.\d{6})\..*")


class TensorBoardReporter:
    """Adds an event file to ``folder``; what an interrupted run wrote beyond ``start_step`` is hidden.

    The summaries are those of torch's SummaryWriter. The file is our own, because that class writes from a thread,
    where a full disk ends in a traceback, and opens a second run for the settings.

    Raises:
        DataError: from each method, if the folder cannot be written.
    """

    def __init__(self, folder: Path, start_step: int = 0) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog

        # TensorBoard reads the files of a folder in the order of their names, also where the clock was set back.
        begun = max(time.time(), _latest(folder) + 1e-5)
        self._path = folder / f"events.out.tfevents.{begun:017.6f}.{socket.gethostname()}.{os.getpid()}"
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
        # At step 0 too: an earlier start may have logged steps and died before its first checkpoint.
        begin = {"step": start_step + 1, "session_log": SessionLog(status=SessionLog.START)}
        self._write({"file_version": "brain.Event:2"}, begin)

    def hparams(self, cfg: str, values: Mapping[str, str | float]) -> None:
        """The resolved settings, as text and as TensorBoard's hyperparameters."""
        from torch.utils.tensorboard.summary import hparams, text

        self._add(0, text("hparams", f"```\n{cfg}```"), *hparams(dict(values), {"val/nelbo": None}))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        from torch.utils.tensorboard.summary import scalar

        self._add(step, *(scalar(tag, value) for tag, value in values.items()))

    def image(self, step: int, tag: str, grid: np.ndarray) -> None:
        from torch.utils.tensorboard.summary import image

        self._add(step, image(tag, grid, dataformats="HWC"))

    def histogram(self, step: int, tag: str, values: np.ndarray) -> None:
        from torch.utils.tensorboard.summary import histogram

        if len(finite := values[np.isfinite(values)]):
            self._add(step, histogram(tag, finite, bins=_edges(finite)))

    def close(self) -> None:
        """Everything is already in the file."""

    def _add(self, step: int, *summaries: Any) -> None:
        self._write(*({"step": step, "summary": summary} for summary in summaries))

    def _write(self, *events: dict[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        with writing_to(self._path.parent), open(self._path, "ab") as file:
            for event in events:
                RecordWriter(file).write(Event(wall_time=time.time(), **event).SerializeToString())


def _edges(values: np.ndarray) -> np.ndarray:
    """Borders of the bins of a histogram, (n + 1,): a fixed number, for values of any size that lie near or far.

    NumPy's own choices fail where values are large and alike, or ask for billions of bins where one is far off.
    """
    low, high = float(values.min()), float(values.max())
    least = max(abs(low), abs(high), 1e-12) * 1e-6  # far above the spacing of the numbers there
    if high - low < least:
        low, high = low - least, high + least
    return np.linspace(low, high, N_BINS + 1)


def _latest(folder: Path) -> float:
    """When the newest file there began, in seconds since 1970; 0 if there is none."""
    return max(
        (float(match[1]) for path in folder.glob("events.*") if (match := EVENTS.fullmatch(path.name))), default=0
    )
