"""What readers of sources give: pictures by name, and what the source itself says of them."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_scripts.account import Account
from data_scripts.rows import Readable, Row
from data_scripts.unpacking import unpack
from lvae_torch.errors import DataError

Label = int | str | tuple[int, ...]


@dataclass(frozen=True)
class Pictures:
    """An archive, in the sense of ``data_scripts.archives``, of nothing but pictures."""

    path: Path
    spans: dict[str, Readable] = field(default_factory=dict)
    labels: dict[str, Label] = field(default_factory=dict)
    """What the source itself says, such as a table's column; by name."""
    label_names: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return list(self.spans)

    def span(self, name: str) -> Readable:
        return self.spans[name]

    def read(self, name: str) -> bytes:
        value = self.spans[name].read()
        assert isinstance(value, bytes), name
        return value

    def add(self, other: "Pictures", prefix: str = "") -> None:
        """Take over what ``other`` has, its names behind ``prefix``."""
        self.spans.update({prefix + name: span for name, span in other.spans.items()})
        self.labels.update({prefix + name: label for name, label in other.labels.items()})
        if other.label_names and self.label_names not in ([], other.label_names):
            raise DataError(f"{self.path}: its parts have classes of different names.")
        self.label_names[:] = other.label_names or self.label_names


def is_row(span: Readable) -> bool:
    """Whether a picture is one of many in an array or a table, so that its name's folders mean nothing."""
    return isinstance(span, Row) and span.row >= 0


@dataclass(frozen=True)
class Place:
    """Where a reader works, and what it was asked."""

    folder: Path
    """For what must be unpacked; it goes when the dump is whole."""
    dumps: Path
    """Of all dumps, where no pictures are looked for."""
    account: Account
    key: str = ""
    """Which array or column holds the pictures."""
    axes: str = ""
    """How an array's axes are called."""

    def unpacked(self, what: str) -> Path:
        """Where ``what``, a name with slashes, goes when it is unpacked; others may end like it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{hashlib.sha256(os.fsencode(what)).hexdigest()[:16]}_{what.rpartition('/')[2][-100:]}"

    def unpack(self, what: str, pieces: Iterable[bytes]) -> Path:
        """Write ``pieces``, which ``what`` unpacks to, into a file of their own; returns its path.

        Raises:
            NoRoomError: if there is no room for them, or they cannot be written; what ``pieces`` raises, too.
        """
        return unpack(self.unpacked(what), what, pieces)


def need(extra: str, module: str, what: Path) -> DataError:
    """The error for a package that is not installed."""
    return DataError(f"{what}: needs {module}, which is not installed. Install it: pip install 'lvae_torch[{extra}]'.")


def one_of(choices: Sequence[str], asked: str, where: Path, what: str) -> str:
    """The key that was asked for, or the only one there is.

    Raises:
        DataError: naming the choices.
    """
    if asked in choices or (not asked and len(choices) == 1):
        return asked or choices[0]
    if not choices:
        raise DataError(f"{where}: has no {what} that may be pictures.")
    there = ", ".join(choices)
    asks = f"has no {what} {asked!r}" if asked else f"has {len(choices)} {what}s that may be the pictures"
    raise DataError(f"{where}: {asks}; there are: {there}. Choose one with --key NAME.")


def as_label(value: object) -> Label:
    """A label as a source has it, as what a dump can keep."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else int(value)  # type: ignore[call-overload]


def labels_of(names: Sequence[str], values: Sequence[object]) -> Mapping[str, Label]:
    """One label for each name, but those that the source has none for."""
    return {name: as_label(value) for name, value in zip(names, values, strict=True) if value is not None}
