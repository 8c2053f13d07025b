"""One thing that was looked at."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["fine", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, and what to do about it."""

    subject: str
    told: str
    level: Level = "fine"
    """warning: works, but slower or not everywhere; fault: something that people use will fail."""
    remedy: str = ""
    """What to do; for all but what is fine."""

    def __post_init__(self) -> None:
        if self.level != "fine" and not self.remedy:
            raise ValueError(f"{self.subject}: a {self.level} needs a remedy")
