"""What several runs reached, side by side."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lvae_torch.errors import CfgError, DataError
from lvae_torch.files import read_json
from lvae_torch.reporting.figures import draw_panels
from lvae_torch.reporting.history import History
from lvae_torch.run_folder import RunFolder

DEPTH = re.compile(r"(?P<kind>.+)_(?P<layers>\d+)")
COLUMNS = ("run", "step", "test -ELBO", "-log p bound", "KL per layer, top first", "units > 0.01 nats, top first")


@dataclass(frozen=True)
class Result:
    """The last evaluation of a run, and its bound, as far as they are there."""

    name: str
    evaluation: dict[str, Any]
    """Keys as in ``metrics.jsonl``, without ``val/``."""
    bound: dict[str, Any]
    """Of the likelihood mode."""
    training: dict[str, Any]
    """The last log line of the training, without ``train/``."""

    @classmethod
    def of(cls, folder: RunFolder) -> "Result":
        history = History.read(folder.metrics_jsonl) if folder.metrics_jsonl.is_file() else History(())
        evaluated = [record for record in history.records if "val/nelbo" in record]
        evaluation = {key.removeprefix("val/"): value for key, value in evaluated[-1].items()} if evaluated else {}
        path = folder.synthesis("likelihood") / "metrics.json"
        try:
            bound = read_json(path) if path.is_file() else {}
        except DataError:
            bound = {}  # being written
        return cls(folder.name, evaluation, bound, history.last("train/"))

    def per_layer(self, key: str) -> list[float]:
        """Values of ``key/00``, ``key/01`` and so on, top first."""
        return [self.evaluation[k] for k in sorted(self.evaluation) if k.startswith(f"{key}/")]


def draw_depths(path: Path, results: Sequence[Result]) -> None:
    """Bounds on log p(x) against the number of latent layers, one line for each kind of run.

    Kind and number are read from names such as ``mnist_lvae_5``.

    Raises:
        CfgError: if no run has such a name and an evaluation.
    """
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {"train, L_1": {}, "test, L_1": {}, "test, L_K": {}}
    for result in results:
        if not (match := DEPTH.fullmatch(result.name)):
            continue
        found = (result.training.get("nelbo"), result.evaluation.get("nelbo"), result.bound.get("nll_bound"))
        for panel, value in zip(panels.values(), found, strict=True):
            if value is not None:
                panel.setdefault(match["kind"], []).append((int(match["layers"]), -value))
    drawn = {
        title: {
            kind: (np.array(sorted(points))[:, 0], np.array(sorted(points))[:, 1]) for kind, points in lines.items()
        }
        for title, lines in panels.items()
        if lines
    }
    if not drawn:
        raise CfgError("--figure: no run has been evaluated whose name ends in its number of layers, as mnist_lvae_5.")
    draw_panels(path, drawn, "latent layers", "nats per image")


def results_table(results: Sequence[Result]) -> str:
    """A Markdown table, nats per image."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *map(_row, results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = (" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"| {line} |" for line in lines)


def _row(result: Result) -> tuple[str, ...]:
    known = result.evaluation
    bound = result.bound if result.bound.get("step") == known.get("step") else {}  # of other weights otherwise
    told = f"{bound['nll_bound']:.2f} (K = {bound['iw_samples']:,}, {bound['n_images']:,} images)" if bound else "-"
    return (
        result.name,
        f"{known['step']:,}" if known else "-",
        f"{known['nelbo']:.2f}" if known else "-",
        told,
        "  ".join(f"{kl:.2f}" for kl in result.per_layer("kl")) or "-",
        "  ".join(f"{n:.0f}" for n in result.per_layer("informative_units")) or "-",
    )
