"""Reads a cfg file into frozen, typed sections and checks them."""

from lvae_torch.hparams.changes import (
    Difference,
    check_same_model,
    check_unchanged,
    differences,
    format_differences,
    keep_settings,
    refuse_changes,
    shared_by_all,
    trained_settings,
)
from lvae_torch.hparams.epochs import in_steps, schedules_are_in_epochs
from lvae_torch.hparams.load import load, load_in_place, load_text, model_section
from lvae_torch.hparams.settings import Settings, sealed_cfg, to_cfg

__all__ = [
    "Difference",
    "Settings",
    "check_same_model",
    "check_unchanged",
    "differences",
    "format_differences",
    "in_steps",
    "keep_settings",
    "load",
    "load_in_place",
    "load_text",
    "model_section",
    "refuse_changes",
    "schedules_are_in_epochs",
    "sealed_cfg",
    "shared_by_all",
    "to_cfg",
    "trained_settings",
]
