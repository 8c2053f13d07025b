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
REFUSED_KEYS = {("run", "seed"), ("optimizer", "name"), ("train", "channels_last"), ("train", "freeze")}
"""Further keys that must not change: the order of the data and the meaning of the moments depend on them."""


WHERE_IT_LIES = {("run", key) for key in ("name", "runs", "device", "trackers", "report", "expect")}
"""Keys that do not tell one run from another: it may be moved, copied, go on elsewhere, or be watched by others."""
PLACES = {("run", "runs"), ("run", "device"), ("data", "dumps")}
"""Keys that may differ between the nodes of one run."""


@dataclass(frozen=True)
class Difference:
    """A key whose value has changed."""

    section: str
    key: str
    saved: Any
    new: Any

    @property
    def name(self) -> str:
        """As messages have it."""
        return f"[{self.section}] {self.key}"

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
    """Every key whose value changed, except ``WHERE_IT_LIES``."""
    found = []
    for name in SECTIONS:
        old, other = getattr(saved, name), getattr(new, name)
        for key in sorted(type(old).model_fields.keys() | type(other).model_fields.keys()):
            before, after = getattr(old, key, None), getattr(other, key, None)
            if before != after and (name, key) not in WHERE_IT_LIES:
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


def format_differences(changes: Sequence[Difference], effects: Sequence[str] = ()) -> str:
    """A table with the columns key, value of the run, new value and, where ``effects`` are given, what that changes."""
    rows = [("key", "this run", "asked for", "what it changes" if any(effects) else "")]
    told = list(effects) or [""] * len(changes)
    rows += [(c.name, repr(c.saved), repr(c.new), effect) for c, effect in zip(changes, told, strict=True)]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join("  " + "  ".join([*map(str.ljust, row, widths), row[3]]).rstrip() for row in rows)


def check_unchanged(folder: RunFolder, settings: Settings) -> None:
    """Compare the settings with those the run began with, if it has begun. Nothing is written.

    Raises:
        CfgError: with a table, if the change of a key is refused.
    """
    # Without a checkpoint a run has not begun: its first cfg may have been one that failed.
    if folder.hparams_cfg.is_file() and folder.has_checkpoints:
        refuse_changes(folder, load(folder.hparams_cfg), settings)


def refuse_changes(folder: RunFolder, known: Settings, settings: Settings) -> None:
    """Compare the settings with those ``known`` of the run.

    Raises:
        CfgError: with a table, if the change of a key is refused.
    """
    if refused := [change for change in differences(known, settings) if change.is_refused]:
        raise CfgError(
            f"{folder.path}: this run began with other settings that shape the model or the data:\n"
            f"{format_differences(refused)}\n"
            f"Take them back, choose another run.name, or remove the run with ./reset.sh {folder.name}."
        )


def keep_settings(folder: RunFolder, settings: Settings, changes: str = "") -> None:
    """Keep the resolved settings with the run, and a table of what changed; nothing may be refused after this."""
    write_text(folder.hparams_cfg, sealed_cfg(settings))
    if changes:
        say(f"{folder.name}: continuing with changed settings:\n{changes}")
        append_text(folder.path / "changes.txt", f"{datetime.now(UTC).isoformat(timespec='seconds')}\n{changes}\n\n")


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
