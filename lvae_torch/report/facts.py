"""What is known of a run: its settings, its history, and the results of the modes that were run with it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lvae_torch.errors import DataError
from lvae_torch.files import known_of
from lvae_torch.hparams import Settings
from lvae_torch.hparams.settings import SECTIONS
from lvae_torch.importing.published import published_models
from lvae_torch.reporting.belonging import is_own
from lvae_torch.reporting.history import History
from lvae_torch.runs.folder import RunFolder


@dataclass(frozen=True)
class Facts:
    """Everything in a run's folder that a report tells of; a run that was only begun has little."""

    name: str
    settings: Settings
    history: History
    status: Mapping[str, Any]
    """``status.json``; empty if there is none."""
    results: Mapping[str, Mapping[str, Any]]
    """Mode -> its ``metrics.json``."""
    about: Mapping[str, str]
    """Data, commit, versions, as far as they are known."""

    @classmethod
    def of(cls, settings: Settings, about: Mapping[str, str]) -> "Facts":
        """Read the folder of the run; what is missing or damaged is left out."""
        folder = RunFolder.of(settings.run)
        try:
            history = History.read(folder.metrics_jsonl) if folder.metrics_jsonl.is_file() else History(())
        except DataError:
            history = History(())
        found = {
            path.parent.name: known_of(path) for path in sorted((folder.path / "synthesis").glob("*/metrics.json"))
        }
        results = {mode: result for mode, result in found.items() if result}
        return cls(folder.name, settings, history, known_of(folder.status_json), results, about)

    @property
    def evaluation(self) -> dict[str, Any]:
        """The last evaluation in training, with keys as in ``metrics.jsonl`` but without ``val/``; empty before it."""
        evaluated = [record for record in self.history.records if "val/nelbo" in record]
        last = evaluated[-1] if evaluated else {}
        return {key.removeprefix("val/"): value for key, value in last.items()}

    @property
    def steps(self) -> tuple[int, int | None]:
        """Steps taken, and how many there shall be where that is known."""
        taken = max([int(self.status.get("step") or 0), *(int(r["step"]) for r in self.history.records[-1:])])
        return taken, self.status.get("steps")

    @property
    def seconds(self) -> float | None:
        """From the first line of the history to the last, with pauses."""
        times = [record["time"] for record in self.history.records if "time" in record]
        return max(times) - min(times) if len(times) > 1 else None

    def layers(self, prefix: str) -> list[str]:
        """The keys ``prefix/00``, ``prefix/01`` and so on of the history, top layer first."""
        pattern = re.compile(re.escape(prefix) + r"/\d+")
        found = {key for record in self.history.records[-200:] for key in record if pattern.fullmatch(key)}
        return sorted(found, key=lambda key: int(key.rpartition("/")[2]))

    def is_current(self, mode: str) -> bool:
        """Whether the results of a mode are of the weights and the data that were evaluated last."""
        own = self.settings.evaluated_on
        known = own | {"step": step} if (step := self.evaluation.get("step")) is not None else {}
        return is_own(self.results[mode], known)

    def values_and_defaults(self) -> dict[str, tuple[Any, Any]]:
        """``section.key`` -> (value, default) of every setting of this run's family."""
        told = {}
        for name in SECTIONS:
            section = getattr(self.settings, name)
            for key, field in type(section).model_fields.items():
                default = "(no default)" if field.is_required() else field.get_default(call_default_factory=True)
                told[f"{name}.{key}"] = (getattr(section, key), default)
        return told

    @property
    def expected(self) -> str:
        """What the publication or the cfg says that the run should come to; "" if neither says anything."""
        model = published_models().get(self.name)
        if model is not None:
            return f"-ELBO {model.published:g} {model.unit}, as published ({model.program})"
        return self.settings.run.expect


def told_with_error(value: Any, error: Any = None, digits: int = 2) -> str:
    """``87.15 ± 0.21``; what is not a finite number is told as such."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "not finite"
    has_error = isinstance(error, int | float) and math.isfinite(error)
    return f"{value:,.{digits}f} ± {error:.{digits}f}" if has_error else f"{value:,.{digits}f}"
