"""The base of every typed cfg section: frozen, strict about types, without unknown keys."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from lvae_torch.errors import closest
from lvae_torch.files import expanded

T = TypeVar("T")


class KeysError(ValueError):
    """The problems that ``Section.problems`` found."""

    def __init__(self, section: "Section", problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.section = section  # other sections can still be compared with it
        self.problems = problems


class Section(BaseModel):
    """One ``[section]`` of a cfg. Subclasses document each field below it and check fields together in ``problems``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    def problems(self) -> Iterator[str]:
        """Yield problems between keys that are each valid on their own."""
        yield from ()

    def without_effect(self) -> Iterator[str]:
        """Yield what is set and does nothing. Runs of before go on with it, so it is told and is no problem."""
        yield from ()

    @model_validator(mode="after")
    def _has_no_problems(self) -> Self:
        if problems := [problem.rstrip(".") for problem in self.problems()]:
            raise KeysError(self, problems)
        return self


def _integral(value: Any) -> Any:
    """8.0 -> 8, because the reference's cfg files write counts as floats; True and 8.5 stay refused."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


EPOCHS = re.compile(r"(\d+(?:\.\d+)?) epochs?")


def _steps(value: Any) -> Any:
    if isinstance(value, str) and not EPOCHS.fullmatch(value):
        raise ValueError("needs a whole number of steps, or text such as '20 epochs'")
    if isinstance(value, int | float) and value < 0:
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
_IN_STEPS = "in steps"  # marks the types below, at any depth of a field's type
Steps = Annotated[int | str, BeforeValidator(_steps), _IN_STEPS]
"""A number of steps, or of epochs as text: '20 epochs'."""
PositiveSteps = Annotated[Steps, AfterValidator(_positive)]
Float = Annotated[float, Field(allow_inf_nan=False)]
NonNegative = Annotated[Float, Field(ge=0)]
Positive = Annotated[Float, Field(gt=0)]
Fraction = Annotated[Float, Field(ge=0, lt=1)]


def _share(value: Any) -> Any:
    return 0 if isinstance(value, float) and value == 1 else value


CountOrShare = Annotated[Count | Fraction, BeforeValidator(_share)]
"""A number of things, or a share of all; 0, and the float 1.0, are all of them, the whole number 1 is one."""


@dataclass(frozen=True, eq=False)
class one_of:  # noqa: N801  # it is used as a function
    """A validator that accepts one of ``names``, for choices from a table."""

    names: Collection[str]

    def __call__(self, name: str) -> str:
        if name not in self.names:
            meant = closest(name, self.names)
            guess = f" (did you mean {meant!r}?)" if meant else ""
            raise ValueError(f"needs one of {', '.join(map(repr, self.names))}{guess}")
        return name


def choices(field: FieldInfo) -> list[Any]:
    """The values that a field, or each entry of its list, is chosen from; empty if it may have others too."""
    return list(dict.fromkeys(_listed(field.metadata) or _choices(field.annotation)))


def _choices(kind: Any) -> list[Any]:
    parts, origin = get_args(kind), get_origin(kind)
    if origin is Literal:
        return list(parts)
    if origin is Annotated:
        return _listed(_metadata(kind)) or _choices(parts[0])
    if origin is tuple and parts[1:] == (...,):
        return _choices(parts[0])
    if origin in (Union, UnionType):
        each = [_choices(part) for part in parts if part is not NoneType]
        return [choice for one in each for choice in one] if all(each) else []
    return []


def _listed(metadata: Sequence[Any]) -> list[str]:
    found = (one.func for one in metadata if isinstance(one, AfterValidator))
    return [name for check in found if isinstance(check, one_of) for name in check.names]


def is_in_steps(field: FieldInfo) -> bool:
    """Whether the field counts steps, and so may be given in epochs."""
    return _IN_STEPS in field.metadata or _mentions_steps(field.annotation)


def _mentions_steps(kind: Any) -> bool:
    return any(part == _IN_STEPS or _mentions_steps(part) for part in (*get_args(kind), *_metadata(kind)))


def _metadata(kind: Any) -> tuple[Any, ...]:
    return getattr(kind, "__metadata__", ())


def whole(steps: int | str) -> int:
    """The number of steps; epochs must be converted to steps before."""
    assert isinstance(steps, int), steps
    return steps


PathText = Annotated[str, AfterValidator(expanded)]
"""A path as text; ``~`` and ``$VARIABLES`` are replaced."""

TupleOf = Annotated[tuple[T, ...], BeforeValidator(_as_tuple)]
