"""The same name continues the same run: what may have changed in its settings since, and what may not."""

from datetime import UTC, datetime

from lvae_torch.errors import CfgError, say
from lvae_torch.files import append_text, write_text
from lvae_torch.hparams import (
    Settings,
    differences,
    format_differences,
    load,
    sealed_cfg,
)
from lvae_torch.runs.folder import RunFolder


def begin_or_continue(folder: RunFolder, settings: Settings) -> None:
    """Keep the resolved settings with the run; hold them against those it began with, if it has begun.

    Raises:
        CfgError: with a table, if a key changed that would change the model or the data.
    """
    # Before its first checkpoint a run has not begun: its cfg may still have been one that no model could be made of.
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
