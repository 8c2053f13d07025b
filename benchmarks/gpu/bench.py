"""What the checks share: the device, its clock, and the rows that they give."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lvae_torch.data.shapes import ImageShape
from lvae_torch.hparams import Settings, in_steps, load

EGS = Path(__file__).resolve().parents[2] / "egs"
STEPS_PER_EPOCH = 500
QUICK = ("model.n_filters=4", "model.z_channels=[2, 2]", "model.downsample=[1, 1]")
Number = float | int | str


@dataclass(frozen=True)
class Row:
    """One thing that a check found; ``passed`` is false where it is not as it must be."""

    what: str
    numbers: Mapping[str, Number]
    passed: bool = True


@dataclass(frozen=True)
class Bench:
    """Where the checks run, and whether they only show that they run."""

    device: torch.device
    is_quick: bool = False

    @property
    def is_card(self) -> bool:
        return self.device.type == "cuda"

    @property
    def quickstart(self) -> tuple[str, ...]:
        """Overrides of ``egs/quickstart.cfg``."""
        return QUICK if self.is_quick else ()

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.is_card:
            torch.cuda.synchronize(self.device)

    def seconds(self, act: Callable[[], object], n: int) -> float:
        """Of one call, the mean of ``n`` after a first one, with the wait for the last."""
        act()
        self.wait()
        start = time.perf_counter()
        for _ in range(n):
            act()
        self.wait()
        return (time.perf_counter() - start) / n

    def images(self, n: int, shape: ImageShape, n_levels: int) -> Tensor:
        """A raw batch, uint8 (n, H, W, C) on the device, the same on every device."""
        channels, height, width = shape
        generator = torch.Generator().manual_seed(n)
        raw = torch.randint(0, n_levels or 256, (n, height, width, channels), dtype=torch.uint8, generator=generator)
        return raw.to(self.device)


def settings_of(cfg: str, *overrides: str) -> Settings:
    """A published cfg with its schedules in steps; no dump is read."""
    return in_steps(load(EGS / f"{cfg}.cfg", ["data.dumps=nowhere", *overrides]), STEPS_PER_EPOCH)
