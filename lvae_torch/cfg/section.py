"""The ground under every typed cfg section: frozen, no unknown keys, and numbers that mean what they say."""

import difflib
import re
from collections.abc import Callable, Collection, Iterator
from typing import Annotated, Any, Self, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from lvae_torch.files import expanded

T = TypeVar("T")


class KeysError(ValueError):
    """What ``Section.problems`` found."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Section(BaseModel):
    """One ``[section]`` of a cfg. Subclasses put one sentence under each field, and checks beside the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    def problems(self) -> Iterator[str]:
        """What is wrong between keys that are right each by itself."""
        yield from ()

    @model_validator(mode="after")
    def _has_no_problems(self) -> Self:
        if problems := [problem.rstrip(".") for problem in self.problems()]:
            raise KeysError(problems)
        return self


def _integral(value: Any) -> Any:
    """8.0 -> 8, as the reference's cfg files write counts; True stays refused, 8.5 too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


EPOCHS = re.compile(r"(\d+(?:\.\d+)?) epochs?")


def _steps(value: Any) -> Any:
    if isinstance(value, str) and not EPOCHS.fullmatch(value):
        raise ValueError("needs a whole number of steps, or text such as '20 epochs'")
    if isinstance(value, int) and value < 0:
        raise ValueError("must be at least 0")
    return _integral(value)


def _positive(value: int | str) -> int | str:
    if value == 0 or (isinstance(value, str) and float(value.split()[0]) == 0):
        raise ValueError("must be above 0")
    return value


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Int = Annotated[int, BeforeValidator(_integral)]
Count = Annotated[Int, Field(ge=0)]
PositiveInt = Annotated[Int, Field(ge=1)]
_IN_STEPS = "in steps"  # marks the types below, wherever in a field's type they stand
Steps = Annotated[int | str, BeforeValidator(_steps), _IN_STEPS]
"""A number of steps, or of epochs as text: '20 epochs'."""
PositiveSteps = Annotated[Steps, AfterValidator(_positive)]
Float = Annotated[float, Field(allow_inf_nan=False)]
NonNegative = Annotated[Float, Field(ge=0)]
Positive = Annotated[Float, Field(gt=0)]
Fraction = Annotated[Float, Field(ge=0, lt=1)]


def one_of(names: Collection[str]) -> Callable[[str], str]:
    """A validator that takes one of ``names``, for choices that a table has."""

    def check(name: str) -> str:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            guess = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"needs one of {', '.join(map(repr, names))}{guess}")
        return name

    return check


def is_in_steps(field: FieldInfo) -> bool:
    """Whether the field counts steps, so that it may be given in epochs."""
    return _IN_STEPS in field.metadata or _mentions_steps(field.annotation)


def _mentions_steps(kind: Any) -> bool:
    return any(part == _IN_STEPS or _mentions_steps(part) for part in (*get_args(kind), *_metadata(kind)))


def _metadata(kind: Any) -> tuple[Any, ...]:
    return getattr(kind, "__metadata__", ())


def whole(steps: int | str) -> int:
    """A number of steps, of settings whose epochs were resolved."""
    assert isinstance(steps, int), steps
    return steps


PathText = Annotated[str, AfterValidator(expanded)]
"""A path as text; ``~`` and ``$VARIABLES`` are replaced."""

TupleOf = Annotated[tuple[T, ...], BeforeValidator(_as_tuple)]
