"""What became of everything that was seen in a source of pictures: taken, left out and why, and changed on the way."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lvae_torch.files import write_text

FILE = "account.tsv"
FIRST = 5  # names that are told with each count; the file has all


@dataclass
class Account:
    """Counts by reason, each with its names. Nothing that was seen may be missing from it."""

    n_seen: int = 0
    """Files, members of archives or rows of tables; a folder that was not entered counts as one, and so does each frame
    that is a picture of its own."""
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Names by reason."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    """Names by what was done to the picture, or found out about it."""
    splits: dict[str, Any] = field(default_factory=dict)
    """Which rule made the splits, from what."""
    equal: dict[str, list[str]] = field(default_factory=dict)
    """By pair of splits: images that are in both, as "name = name"."""

    def leave_out(self, name: str, reason: str) -> None:
        """Count ``name`` as seen and left out."""
        self.n_seen += 1
        self.drop(name, reason)

    def drop(self, name: str, reason: str) -> None:
        """Leave out what was counted as seen before."""
        self.left_out.setdefault(reason, []).append(name)

    def note(self, name: str, what: str) -> None:
        """Tell something about a picture that is taken."""
        self.notes.setdefault(what, []).append(name)

    @property
    def n_left_out(self) -> int:
        return sum(map(len, self.left_out.values()))

    def described(self) -> dict[str, Any]:
        """For ``dataset.json``: counts, with the first names of each."""
        return {
            "splits": self.splits,
            "seen": self.n_seen,
            "taken": self.n_seen - self.n_left_out,
            "left_out": _counts(self.left_out),
            "notes": _counts(self.notes),
            "equal_images": _counts(self.equal),
        }

    def write(self, folder: Path) -> None:
        """All names into ``FILE``: lines of kind, reason and name, between tabs."""
        kinds = (("left out", self.left_out), ("note", self.notes), ("equal", self.equal))
        lines = [f"{kind}\t{why}\t{name}\n" for kind, told in kinds for why, names in told.items() for name in names]
        write_text(folder / FILE, "kind\treason\tname\n" + "".join(lines))


def _counts(told: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    return {why: {"count": len(names), "first": list(names[:FIRST])} for why, names in told.items()}


def lines_of(account: Mapping[str, Any]) -> Iterable[str]:
    """What ``Account.described`` gave, for people."""
    splits = dict(account["splits"])
    more = "; ".join(f"{key}: {_flat(value)}" for key, value in splits.items() if key != "rule")
    yield f"splits: {splits.get('rule', 'as upstream')}" + (f" ({more})" if more else "")
    yield f"seen {account['seen']:,}, taken {account['taken']:,}, left out {account['seen'] - account['taken']:,}"
    for title, told in (("left out", "left_out"), ("note", "notes"), ("equal images", "equal_images")):
        for why, entry in account[told].items():
            first = ", ".join(entry["first"]) + (", ..." if entry["count"] > len(entry["first"]) else "")
            yield f"{title}: {entry['count']:,} {why}: {first}"


def _flat(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {_flat(inner)}" for key, inner in value.items())
    return " + ".join(map(str, value)) if isinstance(value, list) else str(value)
