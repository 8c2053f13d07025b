"""The typed record of a checkpoint, written and read in one place."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lvae_torch.errors import DataError
from lvae_torch.runs.checkpoints import CheckpointStore, Which
from lvae_torch.runs.commit import commit
from lvae_torch.runs.version import VERSION

Weights = dict[str, Tensor]
UNKNOWN = "unknown"
"""Content hash of a run that was imported without its dump."""


@dataclass
class State:
    """The progress of a run: everything it remembers beside its tensors."""

    step: int = 0
    """Steps taken."""
    evaluated_at: int = 0
    best_step: int = 0
    best_nelbo: float = float("inf")
    evaluations_since_best: int = 0
    chosen_step: int = 0
    """Step of the weights that a finished run uses, if not the last one; else 0."""
    last_nelbo: float | None = None
    """Of the last evaluation; None before the first."""
    best_logged: float = float("inf")
    """The lowest mean -ELBO between two log lines."""
    last_logged: float | None = None
    """That of the last log line; None before the first."""
    ends_lost: bool = False
    """Whether most steps between the last two log lines had no finite gradient, or no finite loss."""
    rollbacks: int = 0
    """How often the run went back to a good checkpoint."""
    anchor: Sequence[int] = (0, 0, 0)
    """Since the global batch changed last: the step, and the epoch and the image in it where the order stood then."""
    origin: int = 0
    """The step from which schedules count: where epoch 0 would lie had all steps had today's batch."""
    rate_from: Sequence[float] = (0, 0.0, 0)
    """Since the length of the schedule changed last: the step, the learning rate there, and the steps that lead from
    it to the new schedule."""


@dataclass(frozen=True)
class TrainedOn:
    """The images that a run was trained on, as far as building its model needs them without the dump."""

    dataset: str
    content_hash: str
    image_shape: tuple[int, int, int]
    """(C, H, W)."""
    n_levels: int
    """Pixel levels after preprocessing; 0 for continuous values."""
    codes_of: Mapping[str, str] | None = None
    """If the images are codes, the identity of the run that made them."""
    classes: Sequence[str] = ()
    """Names of the classes that the model is conditional on; empty for an unconditional model."""
    labels_hash: str = ""
    """Tells which image had which class, for the same images could have other labels."""

    @property
    def told(self) -> str:
        """Dataset and first digits of the content hash, for reports and results."""
        return f"{self.dataset} {self.content_hash[:12]}"

    def entries(self) -> dict[str, Any]:
        """The record in plain types, for ``of_entries``; of an unconditional model without classes."""
        plain = {**asdict(self), "image_shape": list(self.image_shape), "classes": list(self.classes)}
        return {key: value for key, value in plain.items() if self.classes or key not in ("classes", "labels_hash")}

    @classmethod
    def of_entries(cls, entries: Mapping[str, Any]) -> "TrainedOn":
        """
        Raises:
            KeyError, TypeError, ValueError: if these are no entries of a record.
        """
        channels, height, width = entries["image_shape"]
        classes = tuple(map(str, entries.get("classes", ())))
        return cls(**{**entries, "image_shape": (channels, height, width), "classes": classes})

    def check_same(self, content_hash: str, where: Path, labels_hash: str = "") -> None:
        """Check that the run continues on the same images, with the same classes.

        Raises:
            DataError: naming the dump, if a hash differs.
        """
        if self.labels_hash != labels_hash:
            raise DataError(
                f"{where}: its labels are not those the run began with. Restore them, or start a run of another name."
            )
        if self.content_hash not in (UNKNOWN, content_hash):
            raise DataError(
                f"{where}: this dump is not the one the run began with ({self.dataset}, content hash "
                f"{self.content_hash[:12]}; here {content_hash[:12]}). Restore it, or start a run of another name."
            )


def versions() -> dict[str, str]:
    """Versions of this program and of PyTorch, and the commit where this program is a checkout."""
    of_checkout = {"commit": known} if (known := commit()) else {}
    return {"lvae_torch": VERSION, "torch": str(torch.__version__), **of_checkout}


@dataclass(frozen=True)
class About:
    """Facts about the run that a checkpoint records."""

    settings: str
    """The resolved settings as cfg text."""
    trained_on: TrainedOn
    versions: Mapping[str, str] = field(default_factory=versions)
    computed_on: Mapping[str, str] = field(default_factory=dict)
    """Device, threads and processes, where they are known: what the last bits depend on."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that training changes, with facts about the run."""

    model: Weights
    ema: Weights | None
    """The averaged weights, where the run has them."""
    optimizer: Mapping[str, Any] | None
    """As torch's ``Optimizer.state_dict`` gives it; None for a run that was imported without moments."""
    meter: Mapping[str, Any]
    """From ``Meter.state_dict``."""
    state: State
    about: About
    ema_is_aged: bool = False
    """Whether the average began as one, or as trained weights, and is not to forget them sooner than ``ema_decay``."""
    unfinished: Mapping[str, Any] | None = None
    """What an evaluation that was stopped had come to, if one was."""

    @property
    def step(self) -> int:
        return self.state.step

    def weights(self, averaged: bool = True) -> Weights:
        """The averaged weights if ``averaged`` and the run has them, else the raw ones."""
        return self.model if self.ema is None or not averaged else self.ema

    def is_averaged(self, averaged: bool = True) -> bool:
        """Whether ``weights(averaged)`` returns averaged ones."""
        return averaged and self.ema is not None

    def as_dict(self) -> dict[str, object]:
        """The dict that ``CheckpointStore.save`` takes."""
        on = self.about.trained_on
        return {
            "model": self.model,
            "ema": self.ema,
            "ema_is_aged": self.ema_is_aged,
            "optimizer": self.optimizer,
            "meter": self.meter,
            "state": asdict(self.state),
            "unfinished": self.unfinished,
            "meta": {
                "settings": self.about.settings,
                "data": on.entries(),
                "versions": dict(self.about.versions),
                "computed_on": dict(self.about.computed_on),
            },
        }

    @classmethod
    def read(cls, content: Mapping[str, Any], where: Path) -> "Checkpoint":
        """Read the dict that ``as_dict`` made.

        Raises:
            DataError: naming ``where``, if an entry is missing or of a wrong type.
        """
        try:
            meta, data = content["meta"], content["meta"]["data"]
            about = About(meta["settings"], TrainedOn.of_entries(data), meta["versions"], meta.get("computed_on", {}))
            tensors = {key: content[key] for key in ("model", "ema", "optimizer", "meter")}
            is_aged, unfinished = bool(content.get("ema_is_aged", False)), content.get("unfinished")
            state = State(**content["state"])
            return cls(**tensors, state=state, about=about, ema_is_aged=is_aged, unfinished=unfinished)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: no whole checkpoint of this program ({error!r}).") from error


def load_newest(store: CheckpointStore, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint; see ``CheckpointStore.load_newest``."""
    content = store.load_newest(warn)
    return None if content is None else Checkpoint.read(content, store.folder)


def load_chosen(store: CheckpointStore, which: Which = "last") -> Checkpoint:
    """Load a checkpoint for use: the last, the best, the last good one, or that of a step.

    If a run finished with patience, ``last`` loads its best one.

    Raises:
        DataError: if it does not exist or is damaged.
    """
    checkpoint = Checkpoint.read(store.load(which), store.folder)
    chosen = checkpoint.state.chosen_step if which == "last" else 0
    return Checkpoint.read(store.load(chosen), store.folder) if chosen else checkpoint


NO_BEST: dict[str, Any] = {"best_step": 0, "best_nelbo": float("inf"), "evaluations_since_best": 0, "chosen_step": 0}
"""The record of a run that has not been evaluated."""


def with_known_best(checkpoint: Checkpoint, store: CheckpointStore) -> Checkpoint:
    """The same; with a new record of the best where its best one is kept no longer."""
    known = checkpoint.state.best_step in (0, checkpoint.step) or store.digest(checkpoint.state.best_step)
    return checkpoint if known else replace(checkpoint, state=replace(checkpoint.state, **NO_BEST))


def store_of(folder: Path) -> CheckpointStore:
    """The store of an existing ``checkpoints`` folder, for reading.

    Raises:
        DataError: if there are none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder.parent}: no checkpoints there. Train it: lvae train CFG")
    return CheckpointStore(folder)
