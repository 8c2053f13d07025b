"""Results of several runs as tables: in Markdown to read, as CSV with all digits, which is also read again."""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lvae_torch.errors import DataError
from lvae_torch.reporting.belonging import conditions
from lvae_torch.reporting.comparison import SEED, Result, labelled, split_of
from lvae_torch.reporting.console import number

COLUMNS = ("run", "step", "{split} -ELBO", "-log p bound", "KL per layer, top first", "units > 0.01 nats, top first")
EVALUATED = ("step", "nelbo", "nll", "kl")
BOUNDED = ("iw_samples", "n_images", "nll_bound", "standard_error")
PER_LAYER = ("kl", "informative_units")
RUNNING = "nelbo in training"
SETTINGS = (SEED, "precision")
WHOLE = {"step", "iw_samples", "n_images", SEED, "seed of the bound"}  # columns of whole numbers
TEXTS = {"run", "data", "precision"}


def results_table(results: Sequence[Result]) -> str:
    """A Markdown table, nats per image; runs of several seeds, if all else is told alike, also have their mean."""
    split = split_of(results)
    rows = [
        tuple(column.format(split=split) for column in COLUMNS),
        tuple("---" for _ in COLUMNS),
        *(_row(*pair) for pair in labelled(results)),
        *_means(results),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = (" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"| {line} |" for line in lines)


def results_csv(results: Sequence[Result]) -> str:
    """The same with all digits, a column for each number, empty where there is none; layers from the bottom, as z_1."""
    rows = [_numbers(result) for result in results]
    columns = max(rows, key=len, default={})  # the deepest has all columns
    file = io.StringIO()
    writer = csv.DictWriter(file, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def read_results(path: Path) -> list[Result]:
    """Read what ``results_csv`` wrote, perhaps on another machine; the curves of training are not in it.

    Raises:
        DataError: if the file is missing or another one, naming the line and the column that is wrong.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8"), newline=""), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table of results ({error}).") from error
    if not rows or not {"run", *EVALUATED} <= set(rows[0]):
        raise DataError(f"{path}: no table of results; give a .csv file that sweep --out wrote.")
    return [_result(_values(row, f"{path}, line {line}")) for line, row in enumerate(rows, 2)]


def _values(row: Mapping[str | None, Any], where: str) -> dict[str, Any]:
    """What a line says, without its empty cells."""
    if None in row or None in row.values():
        raise DataError(f"{where}: has more or fewer cells than there are columns.")
    known: dict[str, Any] = {}
    for column, text in row.items():
        try:
            if text:
                known[str(column)] = text if column in TEXTS else int(text) if column in WHOLE else float(text)
        except ValueError as error:
            raise DataError(f"{where}: {column} is {text!r}; a number was expected, or nothing.") from error
    if "run" not in known or len(known.keys() & set(EVALUATED)) % len(EVALUATED):
        raise DataError(f"{where}: a run's name, and all or none of {', '.join(EVALUATED)} were expected.")
    return known


def _result(values: Mapping[str, Any]) -> Result:
    evaluation = {name: values[name] for name in EVALUATED if name in values}
    for key in PER_LAYER:
        layers = [values[name] for i in range(1, len(values)) if (name := f"{key} of z_{i}") in values]
        evaluation |= {f"{key}/{i:02d}": value for i, value in enumerate(reversed(layers))}
    bound = {name: values[name] for name in BOUNDED if name in values}
    if bound:
        bound |= {"step": values.get("step"), "content": values.get("data"), "seed": values.get("seed of the bound")}
    training = {"nelbo": values[RUNNING]} if RUNNING in values else {}
    settings = {name: values[name] for name in SETTINGS if name in values}
    return Result(values["run"], evaluation, bound, training, (np.array([]), np.array([])), settings)


def _numbers(result: Result) -> dict[str, Any]:
    known, bound = result.evaluation, result.own_bound
    row = {"run": result.name, **{name: result.settings.get(name, "") for name in SETTINGS}}
    row |= {"data": bound.get("content", ""), "seed of the bound": bound.get("seed", "")}
    row |= {name: known.get(name, "") for name in EVALUATED}
    row |= {RUNNING: result.training.get("nelbo", "")}
    row |= {name: bound.get(name, "") for name in BOUNDED}
    for key in PER_LAYER:
        row |= {f"{key} of z_{i}": value for i, value in enumerate(reversed(result.per_layer(key)), 1)}
    return row


def _means(results: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    """Rows of means, with the standard deviation over seeds, of runs that are alike in all else that is told."""
    groups: dict[Any, list[Result]] = {}
    for result in results:
        if result.evaluation and result.seed is not None:
            told = {**result.settings, SEED: None, "step": result.evaluation["step"]}
            groups.setdefault((result.name, *sorted(told.items())), []).append(result)
    for (name, *_), group in groups.items():
        if len(group) > 1:
            elbo, bound = _spread([r.evaluation["nelbo"] for r in group]), "-"
            if len({_how(r.own_bound) for r in group}) == 1 and group[0].own_bound:
                bound = f"{_spread([r.own_bound['nll_bound'] for r in group])} ({_how(group[0].own_bound)})"
            yield f"{name}, mean of {len(group)} seeds", "-", elbo, bound, "-", "-"


def _spread(values: Sequence[float | None]) -> str:
    numbers = [math.nan if value is None else value for value in values]
    with np.errstate(invalid="ignore"):  # of infinite ones
        return f"{_nats(float(np.mean(numbers)))} ± {_nats(float(np.std(numbers, ddof=1)))}"


def _how(bound: Mapping[str, Any]) -> str:
    return ", ".join([f"K = {bound['iw_samples']:,}", *conditions(bound)]) if bound else ""


def _row(label: str, result: Result) -> tuple[str, ...]:
    known = result.evaluation
    bound = result.own_bound
    told = f"{_nats(bound['nll_bound'])} ({_how(bound)})" if bound else "-"
    return (
        label,
        f"{known['step']:,}" if known else "-",
        _nats(known["nelbo"]) if known else "-",
        told,
        "  ".join(map(_nats, result.per_layer("kl"))) or "-",
        "  ".join(f"{n:.0f}" for n in result.per_layer("informative_units")) or "-",
    )


def _nats(value: float | None) -> str:
    """As JSON has it: None stands for what is not finite."""
    return number(math.nan if value is None else value, 2)
