"""Writes numbers and pictures for TensorBoard."""

import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lvae_torch.errors import say
from lvae_torch.reporting.reporter import writing_to
from lvae_torch.reporting.trackers import Tracked

MOST_PIXELS = 1536
MOST_BYTES = 64 * 2**20
"""Of all event files of a run together, from which on they get no more pictures."""
FIRST_BYTES = 8 * 2**20
"""The same at the beginning."""
N_BINS = 64
EVENTS = re.compile(r"events\.out\.tfevents\.(\d+\.\d{6})\..*")


class TensorBoardReporter:
    """Adds an event file to ``folder``, which hides events of an interrupted run after ``start_step``.

    The summaries come from torch. We do not use its SummaryWriter, because it writes from a thread, where a full disk
    ends in a traceback, and opens a second run for the settings.

    Pictures are reduced to ``MOST_PIXELS`` a side, and left out where all files together would grow beyond
    ``MOST_BYTES`` times the share of the training that is done: they never fill a disk, and are spread over the run.

    Args:
        total_steps: of the training; if not given, only the size of all files bounds pictures.
    Raises:
        DataError: from every method, if the folder cannot be written.
    """

    def __init__(self, folder: Path, start_step: int = 0, total_steps: int | None = None) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog

        # TensorBoard reads the files of a folder in the order of their names, also where the clock was set back.
        self._total_steps, self._shown = total_steps, False
        self._written = sum(path.stat().st_size for path in folder.glob("events.*"))
        begun = max(time.time(), _latest(folder) + 1e-5)
        self._path = folder / f"events.out.tfevents.{begun:017.6f}.{socket.gethostname()}.{os.getpid()}"
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
        # At step 0 too: an earlier start may have logged steps and died before its first checkpoint.
        begin = {"step": start_step + 1, "session_log": SessionLog(status=SessionLog.START)}
        self._write({"file_version": "brain.Event:2"}, begin)

    def hparams(self, cfg: str, values: Mapping[str, str | float]) -> None:
        """Write the settings, as text and as TensorBoard's hyperparameters."""
        from torch.utils.tensorboard.summary import hparams, text

        self._add(0, text("hparams", f"```\n{cfg}```"), *hparams(dict(values), {"val/nelbo": None}))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        from torch.utils.tensorboard.summary import scalar

        self._add(step, *(scalar(tag, value) for tag, value in values.items()))

    def image(self, step: int, tag: str, grid: np.ndarray) -> None:
        from torch.utils.tensorboard.summary import image

        summary = image(tag, reduced(grid), dataformats="HWC")
        share = 1.0 if self._total_steps is None else min(1.0, step / self._total_steps)
        if self._written + summary.ByteSize() <= max(FIRST_BYTES, share * MOST_BYTES):
            self._add(step, summary)
        elif not self._shown:
            self._shown = True
            say(f"{self._path.parent}: pictures are left out where they would take more than {MOST_BYTES >> 20} MiB.")

    def histogram(self, step: int, tag: str, values: np.ndarray) -> None:
        from torch.utils.tensorboard.summary import histogram

        if len(finite := values[np.isfinite(values)]):
            self._add(step, histogram(tag, finite, bins=_edges(finite)))

    def close(self) -> None:
        """Does nothing: everything is already in the file."""

    def _add(self, step: int, *summaries: Any) -> None:
        self._write(*({"step": step, "summary": summary} for summary in summaries))

    def _write(self, *events: dict[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        with writing_to(self._path.parent), open(self._path, "ab") as file:
            for event in events:
                record = Event(wall_time=time.time(), **event).SerializeToString()
                RecordWriter(file).write(record)
                self._written += len(record)


def reporter(run: Tracked) -> TensorBoardReporter:
    """The reporter of a run, which has its settings."""
    tensorboard = TensorBoardReporter(run.folder.tensorboard, run.start_step, run.total_steps)
    tensorboard.hparams(run.settings, run.values)
    return tensorboard


def reduced(grid: np.ndarray) -> np.ndarray:
    """A picture, uint8 (H, W, 3), of at most ``MOST_PIXELS`` a side: means over squares of a whole number of pixels."""
    factor = -(-max(grid.shape[:2]) // MOST_PIXELS)
    if factor == 1:
        return grid
    height, width = (side // factor for side in grid.shape[:2])
    squares = grid[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return squares.mean(axis=(1, 3)).round().astype(np.uint8)


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
    """Start time of the newest event file in ``folder``, in seconds since 1970; 0 if there is none."""
    return max(
        (float(match[1]) for path in folder.glob("events.*") if (match := EVENTS.fullmatch(path.name))), default=0
    )
