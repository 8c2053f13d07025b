"""Converts epochs to steps once the number of steps per epoch is known."""

from dataclasses import fields, replace
from typing import Any

from lvae_torch.cfg.section import EPOCHS, Section, is_in_steps
from lvae_torch.errors import CfgError
from lvae_torch.hparams.checks import cross_problems
from lvae_torch.hparams.settings import Settings


def in_steps(settings: Settings, steps_per_epoch: int, origin: int = 0) -> Settings:
    """The same settings with numbers of steps in place of texts like '20 epochs'.


    Args:
        origin: where epoch 0 would lie had all steps had today's batch: the step to end at counts from there, whereas
            schedules and intervals have a beginning of their own.
    Raises:
        CfgError: if these numbers do not fit together.
    """
    sections: dict[str, Any] = {
        field.name: _section_in_steps(getattr(settings, field.name), steps_per_epoch) for field in fields(settings)
    }
    problems = [f"[{name}] {problem}." for name, section in sections.items() for problem in section.problems()]
    if problems := [*problems, *cross_problems(sections)]:
        raise CfgError("\n".join(problems))
    if is_in_epochs(settings.train.steps):
        train = sections["train"]
        sections["train"] = train.model_copy(update={"steps": max(1, train.total_steps + origin)})
    return replace(settings, **sections)


def is_in_epochs(value: object) -> bool:
    """Whether a setting, or a part of it, is given in epochs."""
    if isinstance(value, tuple):
        return any(map(is_in_epochs, value))
    return isinstance(value, str) and EPOCHS.fullmatch(value) is not None


def schedules_are_in_epochs(settings: Settings) -> bool:
    """Whether the length of the run, or anything in ``[optimizer]`` or ``[loss]``, is given in epochs."""
    values = [settings.train.steps, *(value for _, value in (*settings.optimizer, *settings.loss))]
    return any(map(is_in_epochs, values))


def _section_in_steps(section: Section, steps_per_epoch: int) -> Section:
    keys = [key for key, field in type(section).model_fields.items() if is_in_steps(field)]
    return section.model_copy(update={key: _resolved(getattr(section, key), steps_per_epoch) for key in keys})


def _resolved(value: Any, steps_per_epoch: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_resolved(item, steps_per_epoch) for item in value)
    if isinstance(value, str) and (match := EPOCHS.fullmatch(value)):
        return max(1, round(float(match[1]) * steps_per_epoch)) if float(match[1]) else 0
    return value
