"""Classes of own pictures: from the folders that they lie in, from the source itself, or from a table of names."""

import csv
import io
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_scripts.account import Account
from data_scripts.sources.found import Label, Pictures, is_row
from data_scripts.splits import split_of
from lvae_torch.errors import CfgError, DataError

FILE_COLUMNS = ("file", "filename", "file_name", "image", "image_id", "img", "path", "filepath", "name", "id")
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target", "y")


@dataclass(frozen=True)
class Labels:
    """A whole number for each picture, or several, and what they are called."""

    of: Mapping[str, int | tuple[int, ...]] = field(default_factory=dict)
    """By the picture's name."""
    names: Sequence[str] = ()
    """Of the classes 0, 1, ...; or of the columns, where there are several numbers."""
    source: str = ""

    def of_all(self, names: Iterable[str]) -> np.ndarray | None:
        """int64 (n,) or (n, k) for these pictures; None if one of them has no label."""
        try:
            return np.array([self.of[name] for name in names], dtype=np.int64)
        except KeyError:
            return None


def numbered(labels: Mapping[str, Label], names: Sequence[str], source: str) -> Labels:
    """Labels as whole numbers: words are counted in the order of the alphabet."""
    if all(isinstance(label, (int, tuple)) for label in labels.values()):
        return Labels({name: label for name, label in labels.items() if not isinstance(label, str)}, names, source)
    classes = sorted({str(label) for label in labels.values()})
    number = {label: k for k, label in enumerate(classes)}
    return Labels({name: number[str(label)] for name, label in labels.items()}, classes, source)


def from_folders(pictures: Pictures, names: Sequence[str], splits: Collection[str] = ()) -> Labels:
    """The first folder below the split's, as torchvision's ImageFolder has it; none if there are not two classes.

    Args:
        splits: folders that were taken for splits; others are none of a class only if certainly called like one.
    """
    files = [name for name in names if not is_row(pictures.span(name))]
    paths = {
        name: [part for part in name.split("/")[:-1] if part not in splits and not split_of(part)] for name in files
    }
    common = _common(list(paths.values()))
    found = {name: path[common] for name, path in paths.items() if len(path) > common}
    if len(set(found.values())) < 2:
        return Labels()
    return numbered(found, (), "class folders")


def _common(paths: Sequence[Sequence[str]]) -> int:
    """How many folders all paths begin with."""
    k = 0
    while paths and all(len(path) > k and path[k] == paths[0][k] for path in paths):
        k += 1
    return k


def from_source(pictures: Pictures) -> Labels:
    """What the source says itself: a table's column, an array beside the pictures', WebDataset's .cls."""
    return numbered(pictures.labels, pictures.label_names, "the source's own") if pictures.labels else Labels()


# --- a table of names and labels --------------------------------------------------------------------------------------


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Column names and rows of a CSV, TSV or blank-separated text; CelebA's count of lines before them is passed over.

    Raises:
        DataError: if it is no table.
    """
    try:
        data = path.read_bytes()
        # Spreadsheets write UTF-16, too, and always mark it.
        text = data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a text of labels ({error}). Save it as UTF-8.") from error
    lines = text.splitlines()
    if lines and lines[0].strip().isdecimal():
        lines = lines[1:]
    if len(lines) < 2:
        raise DataError(f"{path}: has no lines of labels.")
    counts = {mark: lines[0].count(mark) for mark in "\t,;"}
    mark = max(counts, key=lambda m: counts[m])
    if counts[mark]:
        head, *body = _rows(lines, mark, path)
    else:
        head, body = lines[0].split(), [line.split() for line in lines[1:] if line.strip()]
        if body and len(head) == len(body[0]) - 1:  # CelebA names no column of files
            head = ["file", *head]
    for number, row in enumerate(body, 2):
        if len(row) != len(head):
            raise DataError(f"{path}: line {number} has {len(row)} columns, the first {len(head)}.")
    return head, body


def _rows(lines: Sequence[str], mark: str, path: Path) -> list[list[str]]:
    """The rows of a CSV that are not empty, of which the first names the columns."""
    reader = csv.reader(io.StringIO("\n".join(lines)), delimiter=mark)
    try:
        rows = [row for row in reader if any(row)]
    except csv.Error as error:
        raise DataError(
            f"{path}: line {reader.line_num}: {error}. Perhaps a quotation mark above is not closed; mend the table."
        ) from error
    if len(rows) < 2:
        raise DataError(f"{path}: has no lines of labels.")
    return [[cell.strip() for cell in rows[0]], *rows[1:]]


def from_table(
    path: Path, file_column: str, label_columns: Sequence[str], names: Sequence[str], account: Account
) -> Labels:
    """A label, or several, for each of ``names``, by a table that names files in any usual way.

    Raises:
        CfgError: for a column that there is not, or where it is not clear which.
        DataError: if the table has no line, or two, for a picture.
    """
    head, rows = read_table(path)
    file = _column(head, file_column, FILE_COLUMNS, "--file-column", path)
    if not label_columns and len(head) == 2:
        wanted = [1 - head.index(file)]
    else:
        asked = label_columns or [""]
        wanted = [head.index(_column(head, name, LABEL_COLUMNS, "--label-column", path)) for name in asked]
    match = _Names(names)
    found = dict[str, list[str]]()
    for row in rows:
        told = row[head.index(file)]
        name = match.find(told, path)
        if name is None:
            account.note(told, f"lines of {path.name} that name no picture taken")
        elif name in found and found[name] != [row[k] for k in wanted]:
            raise DataError(f"{path}: has two different labels for {name}.")
        else:
            found[name] = [row[k] for k in wanted]
    if missing := [name for name in names if name not in found]:
        raise DataError(
            f"{path}: has no line for {len(missing):,} of {len(names):,} pictures, the first {missing[0]}. Add them, "
            "or give --labels none."
        )
    return _as_numbers(found, [head[k] for k in wanted], path)


def _column(head: Sequence[str], asked: str, usual: Sequence[str], option: str, path: Path) -> str:
    known = [asked] if asked in head else [name for name in head if name.lower() in usual and not asked]
    if known and head.count(known[0]) == 1:
        return known[0]
    what = f"has no column {asked!r}" if asked else "does not say which column"
    if known:
        what = f"has two columns {known[0]!r}"
    raise CfgError(f"{path}: {what}; its first line names {', '.join(head)}. Give {option} NAME.")


class _Names:
    """Finds pictures by what a table calls them: the whole name, its end, or without an ending."""

    def __init__(self, names: Sequence[str]) -> None:
        self._by_end = dict[str, list[str]]()
        for name in names:
            base = name.rpartition("/")[2]
            stem = base.rpartition(".")[0]
            for key in {_composed(key) for key in (name, name.rpartition(".")[0], base, stem)} - {""}:
                self._by_end.setdefault(key, []).append(name)

    def find(self, told: str, path: Path) -> str | None:
        parts = [part for part in _composed(told).strip().replace("\\", "/").split("/") if part not in ("", ".")]
        for k in range(len(parts)):
            if found := self._by_end.get("/".join(parts[k:])):
                if len(found) > 1:
                    raise DataError(
                        f"{path}: {told} may be {found[0]} or {found[1]}. Write names with their folders there."
                    )
                return found[0]
        return None


def _composed(name: str) -> str:
    """Accents as macOS, which takes letters apart, and others write them."""
    return unicodedata.normalize("NFC", name)


def _as_numbers(found: Mapping[str, Sequence[str]], columns: Sequence[str], path: Path) -> Labels:
    is_empty = re.compile(r"\s*(nan)?\s*", re.IGNORECASE).fullmatch  # which pandas writes for what is missing
    if empty := [name for name, values in found.items() if any(map(is_empty, values))]:
        raise DataError(
            f"{path}: {len(empty):,} of {len(found):,} pictures have an empty label, the first {empty[0]}. Fill it in, "
            "or leave them out of the folder."
        )
    whole = {name: _whole(values) for name, values in found.items()}
    if all(values is not None for values in whole.values()):
        rows = {name: values for name, values in whole.items() if values is not None}
        if len(columns) == 1:
            return Labels({name: values[0] for name, values in rows.items()}, (), path.name)
        return Labels(rows, columns, path.name)
    if len(columns) > 1:
        raise DataError(
            f"{path}: {', '.join(columns)} are to be whole numbers, and one is not. Give one --label-column."
        )
    return numbered({name: values[0] for name, values in found.items()}, (), path.name)


def _whole(values: Sequence[str]) -> tuple[int, ...] | None:
    """Whole numbers of 64 bits, which tables with gaps write as 3.0; None if one is none."""
    matches = [re.fullmatch(r"\s*([+-]?\d{1,18})(?:\.0*)?\s*", value, re.ASCII) for value in values]
    return tuple(int(match[1]) for match in matches if match) if all(matches) else None
