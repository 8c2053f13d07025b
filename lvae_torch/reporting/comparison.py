"""Results of several runs, and their figures side by side."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lvae_torch.errors import CfgError, DataError
from lvae_torch.files import read_json
from lvae_torch.reporting.belonging import is_own
from lvae_torch.reporting.figures import Curve, draw_bars, draw_curves, draw_panels
from lvae_torch.reporting.history import History
from lvae_torch.runs.folder import RunFolder

SEED = "seed of the run"
DEPTH = re.compile(r"(?P<kind>.+)_(?P<layers>\d+)")


@dataclass(frozen=True)
class Result:
    """The last evaluation of a run and its bound; empty if there are none."""

    name: str
    evaluation: dict[str, Any]
    """Keys as in ``metrics.jsonl``, without ``val/``."""
    bound: dict[str, Any]
    """Results of the likelihood mode."""
    training: dict[str, Any]
    """The last log line of the training, without ``train/``."""
    curve: Curve
    """Steps of the evaluations, and their -ELBO; empty arrays if only a table tells of the run."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What of the run's settings is told beside its numbers."""
    evaluated_on: Mapping[str, Any] = field(default_factory=dict)
    """``weights`` and ``split`` of the evaluation, if they are known."""

    @classmethod
    def of(
        cls,
        folder: RunFolder,
        settings: Mapping[str, Any] | None = None,
        evaluated_on: Mapping[str, Any] | None = None,
    ) -> "Result":
        history = History.read(folder.metrics_jsonl) if folder.metrics_jsonl.is_file() else History(())
        evaluated = [record for record in history.records if "val/nelbo" in record]
        last = evaluated[-1] if evaluated else {}
        evaluation = {key.removeprefix("val/"): math.nan if value is None else value for key, value in last.items()}
        path = folder.synthesis("likelihood") / "metrics.json"
        try:
            bound = read_json(path) if path.is_file() else {}
        except DataError:
            bound = {}  # it is being written
        curve = history.curve("val/nelbo")
        return cls(folder.name, evaluation, bound, history.last("train/"), curve, settings or {}, evaluated_on or {})

    @property
    def seed(self) -> int | None:
        """That of the run, if it is known."""
        return self.settings.get(SEED)

    def is_same_run(self, other: "Result") -> bool:
        """Whether both tell of one run; tables of before seeds were told have none."""
        return self.name == other.name and (None in (self.seed, other.seed) or self.seed == other.seed)

    @property
    def own_bound(self) -> dict[str, Any]:
        """The bound, if it is of the weights and the data that were evaluated last; else empty."""
        own = {**self.evaluated_on, "step": self.evaluation.get("step")}
        return self.bound if is_own(self.bound, own) else {}

    def per_layer(self, key: str) -> list[float]:
        """Values of ``key/00``, ``key/01`` and so on, top first."""
        return [self.evaluation[k] for k in sorted(self.evaluation) if k.startswith(f"{key}/")]


def labelled(results: Sequence[Result]) -> list[tuple[str, Result]]:
    """Each under its name, with the seed where runs of several seeds have that name."""
    names = Counter(result.name for result in results)
    return [(r.name if names[r.name] == 1 else f"{r.name} (seed {r.seed})", r) for r in results]


def split_of(results: Sequence[Result]) -> str:
    """Name of the split that all were evaluated on, for titles; a word for it if it is unknown, or not one."""
    splits = {split for result in results if (split := result.evaluated_on.get("split"))}
    return str(splits.pop()) if len(splits) == 1 else "evaluated"


def draw_comparison(folder: Path, results: Sequence[Result]) -> None:
    """Draw the Ladder VAE paper's figures of several runs: learning curves, KL per layer, bounds against depth.

    Raises:
        CfgError: if no run has been evaluated.
    """
    known = [result for result in results if result.evaluation]
    if not known:
        raise CfgError("--figures: none of these runs has been evaluated; train them first.")
    curves = {label: result.curve for label, result in labelled(known) if len(result.curve[0])}
    if curves:
        draw_curves(folder / "learning_curves.png", curves, "steps", "-ELBO, nats per image", "evaluations in training")
    deepest = max(len(result.per_layer("kl")) for result in known)
    kl = {label: r.per_layer("kl")[::-1] for label, r in labelled(known) if len(r.per_layer("kl")) == deepest}
    labels = [f"z_{i + 1}" for i in range(deepest)]
    if labels:
        draw_bars(folder / "kl_per_layer.png", kl, labels, "nats per image", "KL(q||p) per layer")
    if len({match["layers"] for result in known if (match := DEPTH.fullmatch(result.name))}) > 1:
        _draw_depths(folder / "depths.png", known)


def _draw_depths(path: Path, results: Sequence[Result]) -> None:
    """Draw bounds on log p(x) against the number of latent layers, the last part of names like ``mnist_lvae_5``."""
    samples = {result.own_bound["iw_samples"] for result in results if result.own_bound}
    split = split_of(results)
    bound = f"{split}, L_{samples.pop():,}" if len(samples) == 1 else f"{split}, L_K of several K"
    titles = ("train, L_1, running", f"{split}, L_1", bound)
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {title: {} for title in titles}
    for result in results:
        if not (match := DEPTH.fullmatch(result.name)):
            continue
        found = (result.training.get("nelbo"), result.evaluation.get("nelbo"), result.own_bound.get("nll_bound"))
        for panel, value in zip(panels.values(), found, strict=True):
            if value is not None:
                panel.setdefault(match["kind"], []).append((int(match["layers"]), -value))
    drawn = {
        title: {kind: tuple(np.array(sorted(points)).T) for kind, points in lines.items()}
        for title, lines in panels.items()
        if lines
    }
    draw_panels(path, drawn, "latent layers", "nats per image")
