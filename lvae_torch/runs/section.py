"""The [run] section."""

from typing import Annotated

from pydantic import AfterValidator, field_validator

from lvae_torch.cfg.section import Int, PathText, Section, TupleOf, one_of
from lvae_torch.distributed.place import Device
from lvae_torch.files import check_name
from lvae_torch.runs.trackers import TRACKERS

TrackerName = Annotated[str, AfterValidator(one_of(TRACKERS))]


class RunSection(Section):
    """[run]: name, place, seed and device of a run."""

    name: str
    """Name of the run and of its folder; the same name continues the same run."""
    runs: PathText = "runs"
    """Folder that holds all runs; ~ and $VARIABLES are replaced."""
    seed: Int = 42
    """Seed of everything random: initial weights, order of the data, noise."""
    device: Device = "auto"
    """Device to compute on; auto uses an NVIDIA GPU if there is one. mps, Apple's GPU, was only tested without one."""
    deterministic: bool = False
    """On NVIDIA GPUs: use only kernels that add in a fixed order, so that a resumed run is the uninterrupted one to the
    bit there too, as it is on CPUs in any case; slower."""
    trackers: TupleOf[TrackerName] = ("tensorboard",)
    """Where numbers and pictures go beside metrics.jsonl: a list of tensorboard, wandb and mlflow. The last two write
    to the disk alone, unless the environment names a server. docs/tracking.md tells more."""
    report: bool = True
    """Write report.html, one file to look at, at each evaluation and at the end."""
    expect: str = ""
    """What the run should come to; by default the line '# Expect: ...' of the .cfg file. The report shows it beside
    what was measured."""

    @field_validator("name")
    @classmethod
    def _safe(cls, name: str) -> str:
        return check_name(name, "name")
