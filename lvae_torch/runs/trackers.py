"""The table of trackers: one line each, and one file of reporting/trackers/ with the same name."""

from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True)
class Tracker:
    """A program that keeps and shows the numbers of runs."""

    package: str
    """What its file imports."""
    extra: str | None = None
    """The optional dependency of ours that brings the package; None if it always is there."""


TRACKERS: dict[str, Tracker] = {
    "tensorboard": Tracker("tensorboard"),
    "wandb": Tracker("wandb", extra="wandb"),
    "mlflow": Tracker("mlflow", extra="mlflow"),
}


def is_installed(tracker: Tracker) -> bool:
    """Whether its package can be imported."""
    return find_spec(tracker.package) is not None
