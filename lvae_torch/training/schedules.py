"""Learning-rate schedules: what is left of the peak after the warm-up. One line each in the table at the end."""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Fall:
    """A step after the warm-up, and what the ``[optimizer]`` section says of the way from there."""

    base: float
    """The peak."""
    final: float
    since: int
    """Steps since the fall began."""
    done: float
    """Share of the fall that is done, 0 to 1."""
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
    """Half a cosine from the peak to the end (Loshchilov & Hutter 2017)."""
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
    """The exponential one, which holds for a whole period and then falls at once."""
    return max(fall.final, fall.base * fall.rate ** (fall.since // fall.period))


def noam(fall: Fall) -> float:
    """1/sqrt(step) after the warm-up (Vaswani et al. 2017), scaled to the peak at its end."""
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
