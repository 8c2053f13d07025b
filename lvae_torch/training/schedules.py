"""Learning-rate schedules after the warm-up; the tables at the end have a line each, and the keys that each reads."""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Fall:
    """A step after the warm-up, with the options of ``[optimizer]`` that schedules use."""

    base: float
    """Peak learning rate."""
    final: float
    since: int
    """Steps since the fall began."""
    done: float
    """Completed share of the fall, 0 to 1."""
    rate: float
    """Factor of the exponential schedules per ``period`` steps."""
    period: int
    step: int
    warmup_steps: int
    start: int
    """Step at which the fall begins."""
    end: int
    """Step at which it ends."""


def constant(fall: Fall) -> float:
    return fall.base


def cosine(fall: Fall) -> float:
    """Half a cosine from the peak to the final rate (SGDR, https://arxiv.org/abs/1608.03983, Eq. 5)."""
    return fall.final + (fall.base - fall.final) * 0.5 * (1 + math.cos(math.pi * fall.done))


def cosine_chained(fall: Fall) -> float:
    """Torch's chained form of the cosine as Efficient-VDVAE calls it, with the absolute step: its phase does not begin
    where the fall does, and after the end it rises again."""
    if fall.step < fall.start:
        return fall.base
    # What each step multiplies begins one before the start; at its lowest point torch begins anew, from 2.
    first = 1 + math.cos(math.pi * (fall.start - 1) / fall.end) if fall.step <= fall.end else 2
    return fall.final + (fall.base - fall.final) * (1 + math.cos(math.pi * fall.step / fall.end)) / first


def linear(fall: Fall) -> float:
    return fall.base + (fall.final - fall.base) * fall.done


def exponential(fall: Fall) -> float:
    return max(fall.final, fall.base * fall.rate ** (fall.since / fall.period))


def staircase(fall: Fall) -> float:
    """The exponential schedule in steps: constant for a period, then down at once."""
    return max(fall.final, fall.base * fall.rate ** (fall.since // fall.period))


def noam(fall: Fall) -> float:
    """Proportional to 1/sqrt(step), with the peak at the end of the warm-up (Vaswani et al. 2017, Eq. 3)."""
    start = max(1, fall.warmup_steps)
    return fall.base * math.sqrt(start / max(start, fall.step))


SCHEDULES: dict[str, Callable[[Fall], float]] = {
    "constant": constant,
    "cosine": cosine,
    "cosine_chained": cosine_chained,
    "linear": linear,
    "exponential": exponential,
    "staircase": staircase,
    "noam": noam,
}
FALLING = ("cosine", "cosine_chained", "linear")
READ_BY = {
    "decay_start": (*FALLING, "exponential", "staircase"),
    "decay_end": FALLING,
    "final_learning_rate": (*FALLING, "exponential", "staircase"),
    "decay_rate": ("exponential", "staircase"),
    "decay_steps": ("exponential", "staircase"),
}
"""Keys of ``[optimizer]``, each with the schedules that read it."""
