"""Epochs as steps, once it is known how many steps an epoch has."""

from dataclasses import replace
from typing import Any

from lvae_torch.cfg.section import EPOCHS
from lvae_torch.errors import CfgError
from lvae_torch.hparams.load import Settings, cross_checks

KEYS = {
    "train": ("steps", "log_every", "checkpoint_every"),
    "val": ("every",),
    "optimizer": ("warmup_steps", "decay_start", "decay_end", "decay_steps"),
    "loss": ("beta", "balance_steps"),
}
"""Every key that may be given in epochs."""


def in_steps(settings: Settings, steps_per_epoch: int) -> Settings:
    """The same settings with whole numbers of steps in place of texts such as '20 epochs'.

    Raises:
        CfgError: if the numbers then do not fit together.
    """
    sections = {
        name: getattr(settings, name).model_copy(
            update={key: _resolved(getattr(getattr(settings, name), key), steps_per_epoch) for key in keys}
        )
        for name, keys in KEYS.items()
    }
    resolved = replace(settings, **sections)
    if problems := cross_checks(resolved):
        raise CfgError("\n".join(problems))
    return resolved


def whole(steps: int | str) -> int:
    """A number of steps, of settings that have been through ``in_steps``."""
    assert isinstance(steps, int), steps
    return steps


def _resolved(value: Any, steps_per_epoch: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_resolved(item, steps_per_epoch) for item in value)
    if isinstance(value, str) and (match := EPOCHS.fullmatch(value)):
        return max(1, round(float(match[1]) * steps_per_epoch)) if float(match[1]) else 0
    return value
