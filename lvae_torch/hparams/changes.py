"""What differs between the settings a run began with and those it is asked to go on with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lvae_torch.hparams.load import SECTIONS, Settings

FREE_DATA_KEYS = {"dumps", "verify", "on_device", "val_split", "limit_val"}
"""Keys of [data] that leave the training data as they are."""
REFUSED_KEYS = {("run", "seed"), ("optimizer", "name"), ("train", "channels_last")}
"""Beside [model] and [data]: what the order of the data and the meaning of the optimizer's moments depend on."""


WHERE_IT_RUNS = {("run", "runs"), ("run", "device")}
"""Which no run is another one by."""
PLACES = WHERE_IT_RUNS | {("data", "dumps")}
"""What each node of one run may call by a name of its own."""


@dataclass(frozen=True)
class Difference:
    """One key with two values."""

    section: str
    key: str
    saved: Any
    new: Any

    @property
    def is_refused(self) -> bool:
        """Whether it would make another model or other data of the same run, or leave its moments without a meaning."""
        match self.section:
            case "model":
                return True
            case "data":
                return self.key not in FREE_DATA_KEYS
            case _:
                return (self.section, self.key) in REFUSED_KEYS


def differences(saved: Settings, new: Settings) -> list[Difference]:
    """Every key whose value changed; where a run lies is no change."""
    found = []
    for name in SECTIONS:
        old, other = getattr(saved, name), getattr(new, name)
        for key in sorted(type(old).model_fields.keys() | type(other).model_fields.keys()):
            before, after = getattr(old, key, None), getattr(other, key, None)
            if before != after and (name, key) not in WHERE_IT_RUNS:
                found.append(Difference(name, key, before, after))
    return found


def shared_by_all(settings: Settings) -> str:
    """What every process of a run must agree on, a line for each key."""
    return "\n".join(
        f"[{name}] {key} = {value!r}"
        for name in SECTIONS
        for key, value in getattr(settings, name)
        if (name, key) not in PLACES
    )


def format_differences(changes: Sequence[Difference]) -> str:
    """A table: key, the run's value, the value asked for."""
    rows = [("key", "this run", "asked for")]
    rows += [(f"[{c.section}] {c.key}", repr(c.saved), repr(c.new)) for c in changes]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows)
