"""``metrics.jsonl``: every number of a run, one JSON object per line, for programs."""

import json
import time
import zlib
from collections.abc import Mapping, Sequence
from itertools import dropwhile, islice
from pathlib import Path
from typing import Any

import numpy as np

from lvae_torch.errors import DataError
from lvae_torch.files import atomic_write, finite
from lvae_torch.reporting.reporter import writing_to

MOST_VALUES = 1024  # larger histograms are not written
CHECKSUM = b', "crc32": '  # the last key of a line: the checksum of the line without it
OWN = ("step", "time", "crc32")  # keys of a line; all others are names of numbers, such as val/nelbo
Record = dict[str, Any]


class JsonlReporter:
    """Appends lines to ``path``: step, seconds since 1970, the numbers (null if not finite), and the line's crc32.

    A resumed run repeats the steps after ``start_step``, so their lines are removed, like an incomplete last line.
    Except for the times, the file then equals that of an uninterrupted run.

    Args:
        is_evaluated: whether the evaluation of ``start_step`` counts; else it will be repeated too.
        is_chosen: whether that of the best weights, which comes after it at the end of a run, counts.
    Raises:
        DataError: if a line that must stay is damaged, or the file cannot be written.
    """

    def __init__(self, path: Path, start_step: int = 0, is_evaluated: bool = True, is_chosen: bool = True) -> None:
        self._path = path
        if path.exists():
            text = path.read_bytes()
            kept = _until(text, start_step, is_evaluated, is_chosen, path)
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


def _until(text: bytes, last_step: int, is_evaluated: bool, is_chosen: bool, path: Path) -> bytes:
    """The lines of steps up to ``last_step``; steps need not be in order."""
    lines = text.split(b"\n")[:-1]  # after the last line end: nothing, or an incomplete line
    records = [_record(line) for line in lines]
    if not is_chosen:
        records = records[: _end_of_evaluation(records, last_step)]
        lines = lines[: len(records)]

    def stays(record: Record | None) -> bool:
        if record is None or record["step"] > last_step:
            return False
        return is_evaluated or record["step"] < last_step or not any(key.startswith("val/") for key in record)

    n_kept = max((i + 1 for i, record in enumerate(records) if stays(record)), default=0)
    if None in records[:n_kept]:
        raise DataError(
            f"{path}: line {records.index(None) + 1} is damaged. Restore the file from a copy, or remove that line."
        )
    return b"".join(line + b"\n" for line, record in zip(lines, records, strict=True) if stays(record))


def _end_of_evaluation(records: Sequence[Record | None], step: int) -> int:
    """Where the evaluation that follows the first one of ``step`` begins, or the end."""
    begins = [(i, record["step"]) for i, record in enumerate(records) if record is not None and "val/nelbo" in record]
    onwards = dropwhile(lambda begin: begin[1] != step, begins)
    return next((i for i, _ in islice(onwards, 1, None)), len(records))


def _sealed(line: bytes) -> bytes:
    return line[:-1] + CHECKSUM + str(zlib.crc32(line)).encode() + b"}"


def _record(line: bytes) -> Record | None:
    """What a line says; None if it is damaged. Lines of older versions have no checksum."""
    try:
        record = json.loads(line)
        if "crc32" in record and _sealed(line.rpartition(CHECKSUM)[0] + b"}") != line:
            return None
        is_known = all(key in OWN or "/" in key for key in record)
        return record if is_known and isinstance(record["step"], int) else None
    except (ValueError, KeyError, TypeError):
        return None
