"""The ground under every typed cfg section: frozen, no unknown keys, and numbers that mean what they say."""

import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

T = TypeVar("T")


class Section(BaseModel):
    """One ``[section]`` of a cfg. Subclasses put one sentence under each field, and checks beside the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


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
Steps = Annotated[int | str, BeforeValidator(_steps)]
"""A number of steps, or of epochs as text: '20 epochs'."""
PositiveSteps = Annotated[Steps, AfterValidator(_positive)]
Float = Annotated[float, Field(allow_inf_nan=False)]
NonNegative = Annotated[Float, Field(ge=0)]
Positive = Annotated[Float, Field(gt=0)]
Fraction = Annotated[Float, Field(ge=0, lt=1)]
TupleOf = Annotated[tuple[T, ...], BeforeValidator(_as_tuple)]
