"""Weights & Biases: offline, in the run's folder, unless ``WANDB_MODE`` says otherwise."""

import os
import uuid
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from lvae_torch.reporting.trackers import Tracked

N_BINS = 64


class WandbReporter:
    """Reports under the names of ``metrics.jsonl``, over our steps.

    A resumed run has the same id; what it repeats of the steps after its checkpoint stands there twice, with equal
    numbers. ``WANDB_DIR`` says where files go, ``WANDB_PROJECT`` and ``WANDB_ENTITY`` whose they are.
    """

    def __init__(self, run: Tracked) -> None:
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode == "offline":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # offline means no connection at all
        import wandb

        run.folder.path.mkdir(parents=True, exist_ok=True)
        self._wandb = wandb
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "lvae_torch"),
            name=run.name,
            id=run.kept("wandb", lambda: uuid.uuid4().hex[:12]),
            resume="allow",
            mode=cast(Any, mode),  # W&B tells what it does not know
            dir=os.environ.get("WANDB_DIR", str(run.folder.path)),
            config=dict(run.values),
            settings=wandb.Settings(silent=True, console="off", disable_code=True, disable_git=True),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def image(self, step: int, tag: str, grid: np.ndarray) -> None:
        self._run.log({"step": step, tag: self._wandb.Image(grid)})

    def histogram(self, step: int, tag: str, values: np.ndarray) -> None:
        if len(finite := values[np.isfinite(values)]):
            low, high = float(finite.min()), float(finite.max())
            counts, edges = np.histogram(finite, N_BINS, (low, high if high > low else low + 1.0))
            self._run.log({"step": step, tag: self._wandb.Histogram(np_histogram=(counts, edges))})

    def close(self) -> None:
        """Finish the run, and the process that writes for it."""
        self._run.finish()
        self._wandb.teardown()


def reporter(run: Tracked) -> WandbReporter:
    """The reporter of a run."""
    return WandbReporter(run)
