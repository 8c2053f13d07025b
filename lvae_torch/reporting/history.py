"""Reads the ``metrics.jsonl`` of a run."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lvae_torch.errors import DataError


@dataclass(frozen=True)
class History:
    """All numbers of a run, in the order of their steps."""

    records: tuple[dict[str, Any], ...]

    @classmethod
    def read(cls, path: Path) -> "History":
        """Read the history in ``path``; an incomplete last line, as in a run in progress, is left out.

        Raises:
            DataError: if the file is missing, or a line in it is damaged.
        """
        try:
            lines = path.read_text("utf-8").split("\n")[:-1]
            return cls(tuple(json.loads(line) for line in lines))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error}). Train the run first, or restore the file.") from error

    def curve(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of ``key``, (n,) each; if a step was reported twice, its later value."""
        found = {record["step"]: record[key] for record in self.records if record.get(key) is not None}
        steps = sorted(found)
        return np.array(steps), np.array([found[step] for step in steps])

    def last(self, prefix: str) -> dict[str, Any]:
        """The last record with keys that begin with ``prefix``, without the prefix; empty if there is none."""
        for record in reversed(self.records):
            if found := {key.removeprefix(prefix): value for key, value in record.items() if key.startswith(prefix)}:
                return {"step": record["step"], **found}
        return {}
