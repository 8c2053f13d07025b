"""The [run] section."""

from pydantic import field_validator

from lvae_torch.cfg.section import Int, PathText, Section
from lvae_torch.distributed.place import Device
from lvae_torch.files import check_name


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

    @field_validator("name")
    @classmethod
    def _safe(cls, name: str) -> str:
        return check_name(name, "name")
