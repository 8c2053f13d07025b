"""The [run] section."""

from typing import Literal

from pydantic import field_validator

from lvae_torch.cfg.section import Int, Section
from lvae_torch.files import check_name


class RunSection(Section):
    """[run]: which run this is, and where."""

    name: str
    """Name of the run and of its folder; the same name continues the same run."""
    runs: str = "runs"
    """Folder of all runs."""
    seed: Int = 42
    """Everything random follows from it: initial weights, order of the data, noise."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""

    @field_validator("name")
    @classmethod
    def _safe(cls, name: str) -> str:
        return check_name(name, "name")
