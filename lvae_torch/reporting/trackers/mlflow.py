"""MLflow: files in the folder of all runs, unless ``MLFLOW_TRACKING_URI`` names a server."""

import os
import re
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from lvae_torch.reporting.trackers import Tracked

STORE = "mlruns"
AT_ONCE = 1000  # metrics, and a tenth as many parameters, as MLflow's interface bounds them
MOST_TEXT = 500
LAYER = re.compile(r"/(\d+)$")


class MlflowReporter:
    """Reports under the names of ``metrics.jsonl``, over our steps; only ``train/kl/00`` is ``train/kl.00``.

    (A file store keeps each metric as a file of its name, and ``train/kl`` cannot be both a file and a folder.)
    A resumed run goes on in the same run of MLflow.
    """

    def __init__(self, run: Tracked) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (run.folder.runs.resolve() / STORE).as_uri()
        if "://" not in uri or uri.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # it is in maintenance, and there to stay
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric = Metric
        self._client: Any = MlflowClient(tracking_uri=uri)
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "lvae_torch"))
        made: list[str] = []

        def new() -> str:
            made.append(str(self._client.create_run(experiment, run_name=run.name).info.run_id))
            return made[0]

        self._id = run.kept("mlflow", new, self._knows)
        if not made:
            self._client.update_run(self._id, status="RUNNING")
            return
        self._client.log_text(self._id, run.settings, "hparams.cfg")
        parameters = [Param(key, str(value)[:MOST_TEXT]) for key, value in run.values.items()]
        for first in range(0, len(parameters), AT_ONCE // 10):
            self._client.log_batch(self._id, params=parameters[first : first + AT_ONCE // 10])

    def _experiment(self, name: str) -> str:
        known = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if known is None else known.experiment_id)

    def _knows(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_run(run_id).info.lifecycle_stage == "active"
        except MlflowException:
            return False

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [self._metric(metric_name(key), float(value), now, step) for key, value in values.items()]
        for first in range(0, len(metrics), AT_ONCE):
            self._client.log_batch(self._id, metrics=metrics[first : first + AT_ONCE])

    def image(self, step: int, tag: str, grid: np.ndarray) -> None:
        self._client.log_image(self._id, grid, key=tag, step=step)

    def histogram(self, step: int, tag: str, values: np.ndarray) -> None:
        """Does nothing: MLflow has no histograms."""

    def close(self) -> None:
        self._client.set_terminated(self._id)


def metric_name(key: str) -> str:
    """``train/kl/00`` -> ``train/kl.00``; all other names as they are."""
    return LAYER.sub(r".\1", key)


def reporter(run: Tracked) -> MlflowReporter:
    """The reporter of a run."""
    return MlflowReporter(run)
