"""``status.json``: what a run is doing while it lives, and how it ended."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from lvae_torch.distributed.processes import Processes
from lvae_torch.errors import DataError, Preempted
from lvae_torch.files import atomic_write
from lvae_torch.runs.folder import RunFolder, RunState

BEAT = 15.0
"""Seconds between writes at least, whatever the run is busy with."""


class RunStatus:
    """What rank 0 writes into ``status.json``: at each change, at each log line, and every ``BEAT`` seconds.

    A reporter among others: numbers of the training and of evaluations come by ``scalars``.

    Args:
        steps: that the run is to take.
        batch_size: images of a step.
    """

    def __init__(self, folder: RunFolder, processes: Processes, steps: int, batch_size: int) -> None:
        self._folder, self._processes, self._batch_size = folder, processes, batch_size
        self.steps = steps
        self._lock = threading.Lock()
        self._phase, self._done, self._total, self._since = "starting", 0, 0, time.monotonic()
        self._rate: float | None = None
        self._evaluation: dict[str, float] | None = None
        self.step: Callable[[], int] = lambda: 0
        """Gives the steps taken so far."""
        self.has_begun = False
        """Whether the run goes on under these settings; until then it may be refused, and keeps its old status."""
        self._is_over = False  # how it ended stands: what closes after it must not say that the run goes on

    def tell(self, phase: str, done: int = 0, total: int = 0) -> None:
        """The run does this now, and has done so much of it; when all of it is done, the run trains on."""
        if self.has_begun and done >= total > 0:
            phase, done, total = "training", self.step(), self.steps
        is_new = phase != self._phase
        if is_new:
            self._phase, self._since = phase, time.monotonic()
        self._done, self._total = done, total
        if is_new:
            self._write_if_possible()

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Inside, the file is fresh; a run that was refused has its old one again afterwards."""
        if not self._processes.is_main:
            yield
            return
        path, over = self._folder.status_json, threading.Event()
        before = path.read_bytes() if path.is_file() else None
        beat = threading.Thread(target=self._beat, args=(over,), name="status", daemon=True)
        beat.start()
        try:
            yield
        finally:
            over.set()
            beat.join()
            if not self.has_begun:
                with suppress(DataError, OSError):
                    _put_back(path, before)

    def write(self, state: RunState, message: str = "") -> None:
        """Replace the file; rank 0 does. After an end only ``write`` does.

        Raises:
            DataError: if the disk is full or the folder cannot be written.
        """
        if self._processes.is_main:
            with self._lock:
                self._is_over = state != "running"
                self._folder.write_status(state, self.step(), message, self._details(state))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers after ``step`` steps: a log line of the training, or an evaluation."""
        self._rate = values.get("speed/images_per_second", self._rate)
        if "val/nelbo" in values:
            names = ("nelbo", "bpd", "iw_bound", "iw_bpd")
            self._evaluation = {"step": step, **{n: values[f"val/{n}"] for n in names if f"val/{n}" in values}}
        self._phase, self._done, self._total = "training", step, self.steps
        self._write_if_possible()

    def image(self, step: int, tag: str, grid: np.ndarray) -> None:
        """A status has no pictures."""

    def histogram(self, step: int, tag: str, values: np.ndarray) -> None:
        """Nor distributions."""

    def close(self) -> None:
        """``write`` tells how it ended."""

    def _details(self, state: RunState) -> dict[str, Any]:
        known: dict[str, Any] = {"steps": self.steps, "device": str(self._processes.device)}
        known |= {"images_per_second": self._rate, "last_evaluation": self._evaluation}
        if state == "running":
            known |= {"phase": self._phase, "done": self._done, "total": self._total, "seconds_to_go": self._to_go()}
        return known

    def _to_go(self) -> float | None:
        """Seconds to the end of training, without evaluations; or of what else is being done."""
        if self._phase == "training":
            return round((self.steps - self.step()) * self._batch_size / self._rate, 1) if self._rate else None
        if not self._done:
            return None
        return round((time.monotonic() - self._since) / self._done * (self._total - self._done), 1)

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(BEAT):
            self._write_if_possible()

    def _write_if_possible(self) -> None:
        """Cheaply, without a sync: what counts comes by ``write``. A full disk is told of by those who need it."""
        if self._processes.is_main:
            with self._lock, suppress(DataError, OSError):
                if self._is_over:
                    return
                self._folder.write_status("running", self.step(), "", self._details("running"), durable=False)


def _put_back(path: Any, before: bytes | None) -> None:
    if before is None:
        path.unlink(missing_ok=True)
    elif path.read_bytes() != before:
        with atomic_write(path) as file:
            file.write(before)


@contextmanager
def kept_status(status: RunStatus, processes: Processes, finish_saving: Callable[[], None]) -> Iterator[None]:
    """Inside a run is ``running``, afterwards ``finished``, ``preempted`` or ``failed``; rank 0 writes.

    Args:
        finish_saving: waits until what was saved is on disk.
    Raises:
        LostRank: in place of the error that the loss of another rank raised here.
    """

    def write_end(state: RunState, message: str) -> None:
        with suppress(DataError):  # a full disk must not hide why the run ended
            status.write(state, message)

    status.write("running")
    status.has_begun = True
    status.tell("training", status.step(), status.steps)  # data was checked before
    try:
        try:
            yield
        finally:
            status.tell("saving")
            finish_saving()
    except Preempted as reason:
        write_end("preempted", str(reason))
        raise
    except KeyboardInterrupt:  # a second Ctrl-C, which does not wait for the save
        write_end("preempted", "stopped at once by SIGINT; the same command continues from the last checkpoint.")
        raise
    except BaseException as reason:
        lost = processes.find_lost(reason)
        write_end("failed", f"{type(lost or reason).__name__}: {lost or reason}")
        if lost is not None:
            raise lost from reason
        raise
    status.write("finished")
