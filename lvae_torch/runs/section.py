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
    """Folder of all runs."""
    seed: Int = 42
    """Everything random follows from it: initial weights, order of the data, noise."""
    device: Device = "auto"
    """Where to compute; auto takes an NVIDIA GPU if there is one, else the CPU. mps is Apple's GPU, tested without one:
    tell us what is wrong with it."""

    @field_validator("name")
    @classmethod
    def _safe(cls, name: str) -> str:
        return check_name(name, "name")
