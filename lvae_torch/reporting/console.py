"""Progress and results as text, for a terminal or a log file."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np

from lvae_torch.errors import say
from lvae_torch.reporting.progress import Course, duration

HUGE = 1e7
"""What a diverged run has; digits of it tell nothing."""


class ConsoleReporter:
    """Shows a progress bar on a terminal; elsewhere prints a line per log interval, with the time still to go."""

    def __init__(self, total_steps: int, start_step: int = 0) -> None:
        self.total = total_steps
        self._course = Course(total_steps, start_step, unit="step", stays=True)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        with suppress(OSError):  # a closed terminal must not end the run
            self._show(step, values)

    def _show(self, step: int, values: Mapping[str, float]) -> None:
        if "val/nelbo" in values:
            self._course.say(f"step {step:,}: validation {_numbers(values, 'val')}")
            return
        numbers = _numbers(values, "train")
        if "train/skipped_now" in values:
            numbers = f"{numbers}  {_skipped(values)}" if values["train/skipped_now"] < values["train/tried_now"] else (
                _skipped(values)
            )  # fmt: skip
        if "speed/images_per_second" in values:
            numbers += f"  {values['speed/images_per_second']:,.0f} images/s"
        if self._course.has_bar:
            self._course.reached(step, numbers)
        else:
            left = self._course.to_go(step) or duration(0)
            say(f"step {step:,}/{self.total:,} ({step / self.total:.0%})  {numbers}  {left} to go")

    def image(self, step: int, tag: str, grid: np.ndarray) -> None:
        """Does nothing: a terminal shows no pictures."""

    def histogram(self, step: int, tag: str, values: np.ndarray) -> None:
        """Does nothing: a terminal shows no histograms."""

    def close(self) -> None:
        self._course.close()


def _numbers(values: Mapping[str, float], prefix: str) -> str:
    return "  ".join(
        f"{label} {number(values[f'{prefix}/{key}'], digits)}"
        for label, key, digits in (("-ELBO", "nelbo", 2), ("NLL", "nll", 2), ("KL", "kl", 2), ("bits/dim", "bpd", 4))
        if f"{prefix}/{key}" in values
    )


def number(value: float, digits: int) -> str:
    """With so many digits behind the point (no -0.00), in short where it is huge, or that it is none."""
    if not math.isfinite(value):
        return "not finite"
    return f"{value:z.{digits}f}" if abs(value) < HUGE else f"{value:.3g}"


def _skipped(values: Mapping[str, float]) -> str:
    """Of the steps since the last log line."""
    skipped, tried = (int(values[f"train/{key}"]) for key in ("skipped_now", "tried_now"))
    middle, largest = (values[f"train/skipped_norm_{key}"] for key in ("median", "largest"))
    norms = [f"median {middle:.4g}, largest {largest:.4g}"] if math.isfinite(middle) else []
    if bad := int(values["train/skipped_not_finite"]):
        norms.append(f"{bad} not finite")
    return f"skipped {skipped} of {tried} steps (gradient norms: {'; '.join(norms)})"


def table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Names and values in two columns under a title."""
    width = max((len(name) for name, _ in rows), default=0)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows]
    return "\n".join([title, "-" * max(map(len, [title, *lines])), *lines])
