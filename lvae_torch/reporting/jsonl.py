"""``metrics.jsonl``: every number of a run, one JSON object per line, for machines."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lvae_torch.files import write_text


class JsonlReporter:
    """Appends to ``path``. Lines beyond ``start_step`` (work that is about to be repeated) and a torn last line go."""

    def __init__(self, path: Path, start_step: int = 0) -> None:
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if (step := _step(line)) is not None and step <= start_step]
            if kept != lines:
                write_text(path, "".join(f"{line}\n" for line in kept))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        record: dict[str, float | None] = {"step": step, "time": round(time.time(), 3)}
        record |= {key: value if math.isfinite(value) else None for key, value in values.items()}
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file.flush()

    def image(self, step: int, tag: str, grid: np.ndarray) -> None:
        """Pictures go elsewhere."""

    def close(self) -> None:
        self._file.close()


def _step(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None
