"""Tables of a report: results of modes, what the run cost, and its settings."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from lvae_torch.report.facts import Facts
from lvae_torch.reporting.progress import duration

MODES_SHOWN = ("sample_quality", "compression")
"""Modes whose numbers have a section of their own; those of likelihoods are in their table."""
NO_SETTINGS = {"run.name", "run.runs", "run.expect"}
"""What a run is called, where it lies, and what is expected of it."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], marked: Sequence[int] = ()) -> str:
    """A table of texts, which are escaped here; the first cell of a row is its header."""
    if not rows:
        return ""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = [
        f'<tr{" class=differs" if i in marked else ""}><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for i, (first, *rest) in enumerate(rows)
    ]
    wide = " class=wide" if len(rows[0]) > 4 else ""
    titles = f"<thead><tr>{top}</tr></thead>" if any(head) else ""
    return f'<div class="scroll"><table{wide}>{titles}<tbody>{"".join(lines)}</tbody></table></div>'


def results_of_modes(runs: Sequence[Facts]) -> Iterator[str]:
    """Modes that measured something else than a likelihood."""
    for mode in MODES_SHOWN:
        having = [facts for facts in runs if mode in facts.results]
        if having:
            yield f"<h2>{escape(mode.replace('_', ' ').capitalize())}</h2>"
            flat = [dict(_flat(facts.results[mode])) for facts in having]
            keys = list(dict.fromkeys(key for one in flat for key in one))
            rows = [[key, *(one.get(key, "–") for one in flat)] for key in keys]
            yield table(["", *(facts.name for facts in having)], rows)


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}: ")
        elif isinstance(value, float):
            yield name, f"{value:.5g}"
        else:
            yield name, "  ".join(map(str, value)) if isinstance(value, list) else str(value)


def costs(runs: Sequence[Facts]) -> Iterator[str]:
    found = [_costs_of(facts) for facts in runs]
    keys = list(dict.fromkeys(key for one in found for key in one))
    if keys:
        yield "<h2>Speed and memory</h2>"
        rows = [[key, *(one.get(key, "–") for one in found)] for key in keys]
        yield table(["", *(facts.name for facts in runs)] if len(runs) > 1 else [], rows)


def _costs_of(facts: Facts) -> dict[str, str]:
    costs = {}
    _, speeds = facts.history.curve("speed/images_per_second")
    if len(speeds):
        middle = sorted(speeds)[len(speeds) // 2]
        costs["images per second"] = f"{middle:,.0f} (median of {len(speeds)} log lines)"
    _, memory = facts.history.curve("speed/peak_memory_gib")
    if len(memory):
        costs["peak memory of rank 0"] = f"{max(memory):.2f} GiB"
    if (seconds := facts.seconds) is not None:
        costs["from the first report to the last"] = duration(seconds)
    costs |= {key: str(facts.status[key]) for key in ("device", "host") if key in facts.status}
    _, skipped = facts.history.curve("train/skipped_steps")
    if len(skipped) and max(skipped):
        costs["skipped steps"] = f"{max(skipped):,.0f}"
    return costs


def settings_that_differ(runs: Sequence[Facts]) -> Iterator[str]:
    """Each setting that some run has changed: the value in each run, a dash where its family has no such key."""
    told = [facts.values_and_defaults() for facts in runs]
    changed = {key for one in told for key, (value, default) in one.items() if value != default} - NO_SETTINGS
    keys = [key for key in dict.fromkeys(key for one in told for key in one) if key in changed]
    rows = []
    for key in sorted(keys, key=lambda key: key.partition(".")[0] != "model"):
        defaults = dict.fromkeys(_value(one[key][1]) for one in told if key in one)  # two families may have two
        rows.append([key, *(_value(one[key][0]) if key in one else "–" for one in told), " or ".join(defaults)])
    differing = [i for i, row in enumerate(rows) if len(set(row[1:-1])) > 1]
    note = "<small>Coloured rows differ between the runs.</small>" if differing else ""
    yield f"<h2>Settings that differ from the defaults{note}</h2>"
    names = [facts.name for facts in runs] if len(runs) > 1 else ["value"]
    yield table(["key", *names, "default"], rows, differing)


def _value(value: Any) -> str:
    return value if value == "(no default)" else repr(value)


def number(value: Any, digits: int = 2) -> str:
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return f"{value:z,.{digits}f}" if is_number else "not finite"
