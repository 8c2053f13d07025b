"""How far long work has come."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

UNKNOWN_STEP = 64 * 2**20  # between lines, where nobody knows the end


@contextmanager
def progress(name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Callable[[int], object]]:
    """Gives a function to call with how much more is done: a bar on a terminal, a line for each tenth in a log."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, initial=done, desc=name, unit=unit, unit_scale=True) as bar:
            yield bar.update
    else:
        yield _lines(name, total, unit, done)


def _lines(name: str, total: int | None, unit: str, done: int) -> Callable[[int], None]:
    step = total / 10 if total else UNKNOWN_STEP

    def advance(n: int) -> None:
        nonlocal done
        before, done = done, done + n
        if done // step > before // step:
            share = f" of {total:,} {unit} ({done / total:.0%})" if total else f" {unit}"
            print(f"{name}: {done:,}{share}", file=sys.stderr, flush=True)

    return advance
