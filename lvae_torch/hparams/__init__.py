"""Reads a cfg file into frozen, typed sections and checks them."""

from lvae_torch.hparams.changes import (
    Difference,
    begin_or_continue,
    check_same_model,
    differences,
    format_differences,
    shared_by_all,
    trained_settings,
)
from lvae_torch.hparams.epochs import in_steps
from lvae_torch.hparams.load import load, load_text, model_section
from lvae_torch.hparams.settings import Settings, sealed_cfg, to_cfg

__all__ = [
    "Difference",
    "Settings",
    "begin_or_continue",
    "check_same_model",
    "differences",
    "format_differences",
    "in_steps",
    "load",
    "load_text",
    "model_section",
    "sealed_cfg",
    "shared_by_all",
    "to_cfg",
    "trained_settings",
]
