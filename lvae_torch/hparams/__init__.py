"""A cfg file -> frozen, typed sections, every check done."""

from lvae_torch.hparams.changes import (
    Difference,
    differences,
    format_differences,
    shared_by_all,
)
from lvae_torch.hparams.epochs import in_steps, whole
from lvae_torch.hparams.load import (
    Settings,
    load,
    load_text,
    sealed_cfg,
    to_cfg,
)

__all__ = [
    "Difference",
    "Settings",
    "differences",
    "format_differences",
    "in_steps",
    "load",
    "load_text",
    "sealed_cfg",
    "shared_by_all",
    "to_cfg",
    "whole",
]
