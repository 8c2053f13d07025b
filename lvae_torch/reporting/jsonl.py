"""``metrics.jsonl``: every number of a run, one JSON object per line, for programs."""

import json
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lvae_torch.errors import DataError
from lvae_torch.files import atomic_write, finite
from lvae_torch.reporting.reporter import writing_to

MOST_VALUES = 1024  # larger histograms are not written
CHECKSUM = b', "crc32": '  # the last key of a line: the checksum of the line without it


class JsonlReporter:
    """Appends lines to ``path``: step, seconds since 1970, the numbers (null if not finite), and the line's crc32.

    A resumed run repeats the steps after ``start_step``, so their lines are removed, like an incomplete last line.
    Except for the times, the file then equals that of an uninterrupted run.

    Raises:
        DataError: if a line that must stay is damaged, or the file cannot be written.
    """

    def __init__(self, path: Path, start_step: int = 0) -> None:
        self._path = path
        if path.exists():
            text = path.read_bytes()
            kept = _until(text, start_step, path)
            if kept != text:
                with atomic_write(path) as file:
                    file.write(kept)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._append(step, {key: float(value) for key, value in values.items()})

    def image(self, step: int, tag: str, grid: np.ndarray) -> None:
        """Does nothing: pictures go to TensorBoard."""

    def histogram(self, step: int, tag: str, values: np.ndarray) -> None:
        """Write the values as a list, unless there are more than ``MOST_VALUES``."""
        if len(values) <= MOST_VALUES:
            self._append(step, {tag: [float(f"{value:.4g}") for value in values]})

    def _append(self, step: int, values: Mapping[str, object]) -> None:
        record = finite({"step": step, "time": round(time.time(), 3), **values})
        with writing_to(self._path), open(self._path, "ab") as file:
            file.write(_sealed(json.dumps(record, allow_nan=False).encode()) + b"\n")

    def close(self) -> None:
        """Does nothing: each line is already in the file."""


def _until(text: bytes, last_step: int, path: Path) -> bytes:
    """The lines of steps up to ``last_step``; steps need not be in order."""
    lines = text.split(b"\n")[:-1]  # after the last line end: nothing, or an incomplete line
    steps = [_step(line) for line in lines]
    n_kept = max((i + 1 for i, step in enumerate(steps) if step is not None and step <= last_step), default=0)
    if None in steps[:n_kept]:
        raise DataError(
            f"{path}: line {steps.index(None) + 1} is damaged. Restore the file from a copy, or remove that line."
        )
    kept = zip(lines[:n_kept], steps, strict=False)
    return b"".join(line + b"\n" for line, step in kept if step is not None and step <= last_step)


def _sealed(line: bytes) -> bytes:
    return line[:-1] + CHECKSUM + str(zlib.crc32(line)).encode() + b"}"


def _step(line: bytes) -> int | None:
    """Step of a line; None if it is damaged. Lines of older versions have no checksum."""
    try:
        record = json.loads(line)
        if "crc32" in record and _sealed(line.rpartition(CHECKSUM)[0] + b"}") != line:
            return None
        return int(record["step"])
    except (ValueError, KeyError, TypeError):
        return None
