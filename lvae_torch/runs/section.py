"""The [run] section."""

from typing import Literal

from pydantic import field_validator

from lvae_torch.cfg.section import Int, Section
from lvae_torch.files import check_name


class RunSection(Section):
    """[run]: name, place, seed and device of a run."""

    name: str
    """Name of the run and of its folder; the same name continues the same run."""
    runs: str = "runs"
    """Folder that holds all runs."""
    seed: Int = 42
    """Seed of everything random: initial weights, order of the data, noise."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto uses a GPU if there is one."""

    @field_validator("name")
    @classmethod
    def _safe(cls, name: str) -> str:
        return check_name(name, "name")
