"""Weights held against the model that they are meant for, by shape."""

from collections.abc import Mapping

from lvae_torch.errors import DataError

Shapes = Mapping[str, tuple[int, ...]]
MOST_TOLD = 8


def first_difference(expected: Shapes, found: Shapes) -> str | None:
    """The first weight, in the model's order, that is missing or has another shape; then what is left over."""
    for name, shape in expected.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != shape:
            return f"{name} has shape {found[name]}, needs {shape}"
    return next((f"{name} is left over" for name in found if name not in expected), None)


def check_shapes(expected: Shapes, found: Shapes, what: str) -> None:
    """Raises DataError, beginning with ``what``, that lists every difference, the first of them first."""
    problems = [f"{name}: missing" for name in expected if name not in found]
    problems += [
        f"{name}: has shape {found[name]}, needs {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    problems += [f"{name}: this model has no such weight" for name in found if name not in expected]
    if problems:
        more = f"\n  ... and {len(problems) - MOST_TOLD} more" if len(problems) > MOST_TOLD else ""
        first = first_difference(expected, found)
        raise DataError(f"{what}. First difference: {first}.\n  " + "\n  ".join(problems[:MOST_TOLD]) + more)
