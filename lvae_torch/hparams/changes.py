"""Compares the settings of a run with those it began with: some keys may change, others may not."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lvae_torch.errors import CfgError, UserError, say
from lvae_torch.files import append_text, write_text
from lvae_torch.hparams.load import load, load_text
from lvae_torch.hparams.settings import SECTIONS, Settings, sealed_cfg
from lvae_torch.models.section import ModelSection
from lvae_torch.runs.checkpoint import About
from lvae_torch.runs.folder import RunFolder

FREE_DATA_KEYS = {"dumps", "verify", "on_device", "val_split", "limit_val"}
"""Keys of [data] that do not affect the training data."""
REFUSED_KEYS = {("run", "seed"), ("optimizer", "name"), ("train", "channels_last")}
"""Further keys that must not change: the order of the data and the meaning of the moments depend on them."""


WHERE_IT_RUNS = {("run", "runs"), ("run", "device")}
"""Keys that do not identify a run: it may be moved or use another device."""
PLACES = WHERE_IT_RUNS | {("data", "dumps")}
"""Keys that may differ between the nodes of one run."""


@dataclass(frozen=True)
class Difference:
    """A key whose value has changed."""

    section: str
    key: str
    saved: Any
    new: Any

    @property
    def is_refused(self) -> bool:
        """Whether the change is refused, because it affects the model, the data or the optimizer's moments."""
        match self.section:
            case "model":
                return True
            case "data":
                return self.key not in FREE_DATA_KEYS
            case _:
                return (self.section, self.key) in REFUSED_KEYS


def differences(saved: Settings, new: Settings) -> list[Difference]:
    """Every key whose value changed, except ``WHERE_IT_RUNS``."""
    found = []
    for name in SECTIONS:
        old, other = getattr(saved, name), getattr(new, name)
        for key in sorted(type(old).model_fields.keys() | type(other).model_fields.keys()):
            before, after = getattr(old, key, None), getattr(other, key, None)
            if before != after and (name, key) not in WHERE_IT_RUNS:
                found.append(Difference(name, key, before, after))
    return found


def shared_by_all(settings: Settings) -> str:
    """The settings that all processes of a run must share, one line per key."""
    return "\n".join(
        f"[{name}] {key} = {value!r}"
        for name in SECTIONS
        for key, value in getattr(settings, name)
        if (name, key) not in PLACES
    )


def format_differences(changes: Sequence[Difference]) -> str:
    """A table with the columns key, value of the run, new value."""
    rows = [("key", "this run", "asked for")]
    rows += [(f"[{c.section}] {c.key}", repr(c.saved), repr(c.new)) for c in changes]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows)


def begin_or_continue(folder: RunFolder, settings: Settings) -> None:
    """Write the settings into the run's folder, after comparing them with those it began with, if it has begun.

    Raises:
        CfgError: with a table, if the change of a key is refused.
    """
    # Without a checkpoint a run has not begun: its first cfg may have been one that failed.
    if folder.hparams_cfg.is_file() and folder.has_checkpoints:
        _compare(folder, settings)
    write_text(folder.hparams_cfg, sealed_cfg(settings))


def _compare(folder: RunFolder, settings: Settings) -> None:
    changes = differences(load(folder.hparams_cfg), settings)
    if refused := [change for change in changes if change.is_refused]:
        raise CfgError(
            f"{folder.path}: this run began with other settings that shape the model or the data:\n"
            f"{format_differences(refused)}\n"
            f"Take them back, choose another run.name, or remove the run with ./reset.sh {folder.name}."
        )
    if changes:
        table = format_differences(changes)
        say(f"{folder.name}: continuing with changed settings:\n{table}")
        append_text(folder.path / "changes.txt", f"{datetime.now(UTC).isoformat(timespec='seconds')}\n{table}\n\n")


def trained_settings(about: About, where: Path) -> Settings:
    """The settings that a checkpoint or bundle at ``where`` was trained with.

    Raises:
        CfgError: if this program cannot read them.
    """
    return load_text(about.settings, f"{where}: its settings")


def check_same_model(
    model: ModelSection, about: About, where: Path, remedy: str, error: type[UserError] = CfgError
) -> None:
    """Check that weights were trained with the same ``[model]`` section.

    Raises:
        error: naming ``where`` the weights lie, and the ``remedy``.
    """
    if trained_settings(about, where).model != model:
        raise error(f"{where}: trained with another [model] section. {remedy}")
