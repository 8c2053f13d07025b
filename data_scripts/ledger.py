"""What became of each picture so far, kept beside an unfinished dump: what it goes on by, and what is accounted for."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from data_scripts.render import Outcome, Render, rendered
from data_scripts.rows import Readable
from data_scripts.spans import BadFileError

FILE = "pictures.jsonl"


class Record(NamedTuple):
    """One picture as it was when it was read."""

    split: str
    outcome: Outcome
    size: int
    modified: int


class Ledger:
    """Records by split and name; one read twice counts as it was read last."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._records = {(record.split, record.outcome.name): record for record in _read(self._path)}

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._records

    def of(self, split: str, names: Iterable[str]) -> Iterator[Record]:
        """The records of these pictures, in this order."""
        return (self._records[split, name] for name in names if (split, name) in self._records)

    def add(self, split: str, outcomes: Iterable[Outcome], spans: Mapping[str, Readable]) -> None:
        """Write down what became of some pictures, before their images are."""
        with open(self._path, "a", encoding="utf-8", errors="surrogateescape") as file:
            for outcome in outcomes:
                span = spans[outcome.name]
                self._records[split, outcome.name] = Record(split, outcome, span.size, span.modified)
                file.write(json.dumps([split, span.size, span.modified, *outcome]) + "\n")

    def still_true(self, chosen: Mapping[str, Mapping[str, Readable]], render: Render) -> bool:
        """Whether all pictures are what they were when read: by size and time, and by pixels where the time differs."""
        for (split, name), record in self._records.items():
            span = chosen.get(split, {}).get(name)
            if span is None or span.size != record.size:
                return False
            if span.modified != record.modified and not _same(span, record.outcome, render):
                return False
        return True


def _same(span: Readable, outcome: Outcome, render: Render) -> bool:
    try:
        return bool(outcome.digest) and rendered(render, span)[2] == outcome.digest
    except BadFileError:
        return False  # it is judged anew


def _read(path: Path) -> Iterator[Record]:
    if not path.is_file():
        return
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            try:
                split, size, modified, name, problem, undecided, notes, digest = json.loads(line)
            except ValueError:  # the line that was being written when the process ended
                continue
            yield Record(split, Outcome(name, problem, undecided, tuple(notes), digest), size, modified)
