"""What several runs reached, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lvae_torch.errors import DataError
from lvae_torch.files import read_json
from lvae_torch.reporting.history import History
from lvae_torch.run_folder import RunFolder

COLUMNS = ("run", "step", "test -ELBO", "-log p bound", "KL per layer, top first", "units > 0.01 nats, top first")


@dataclass(frozen=True)
class Result:
    """The last evaluation of a run, and its bound, as far as they are there."""

    name: str
    evaluation: dict[str, Any]
    """Keys as in ``metrics.jsonl``, without ``val/``."""
    bound: dict[str, Any]
    """Of the likelihood mode."""

    @classmethod
    def of(cls, folder: RunFolder) -> "Result":
        records = History.read(folder.metrics_jsonl).records if folder.metrics_jsonl.is_file() else ()
        evaluated = [record for record in records if "val/nelbo" in record]
        evaluation = {key.removeprefix("val/"): value for key, value in evaluated[-1].items()} if evaluated else {}
        path = folder.synthesis("likelihood") / "metrics.json"
        try:
            bound = read_json(path) if path.is_file() else {}
        except DataError:
            bound = {}  # being written
        return cls(folder.name, evaluation, bound)

    def per_layer(self, key: str) -> list[float]:
        """Values of ``key/00``, ``key/01`` and so on, top first."""
        return [self.evaluation[k] for k in sorted(self.evaluation) if k.startswith(f"{key}/")]


def results_table(results: Sequence[Result]) -> str:
    """A Markdown table, nats per image."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *map(_row, results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = (" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"| {line} |" for line in lines)


def _row(result: Result) -> tuple[str, ...]:
    known, bound = result.evaluation, result.bound
    told = f"{bound['nll_bound']:.2f} (K = {bound['iw_samples']:,}, {bound['n_images']:,} images)" if bound else "-"
    return (
        result.name,
        f"{known['step']:,}" if known else "-",
        f"{known['nelbo']:.2f}" if known else "-",
        told,
        "  ".join(f"{kl:.2f}" for kl in result.per_layer("kl")) or "-",
        "  ".join(f"{n:.0f}" for n in result.per_layer("informative_units")) or "-",
    )
