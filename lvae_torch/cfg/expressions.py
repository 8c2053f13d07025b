"""Reads values of a cfg, Python literals and simple arithmetic, from the syntax tree without executing code.

Examples: ``[1] * 11 + [2]``, ``1/2``, ``max(3, 7)``, ``('linear', 0.7, 0.9)``, and bare words, which are text.
"""

import ast
import math
import operator
import re
from collections.abc import Callable
from typing import Any

from lvae_torch.errors import CfgError

MAX_LENGTH = 10_000  # characters in one value
MAX_DEPTH = 50
MAX_SIZE = 10_000  # elements or characters in a result
MAX_BITS = 256  # size of an integer

_VARIABLE = r"\$(?=[A-Za-z_])|\$\{\w+\}"
_REST = rf"(?:[A-Za-z0-9_.\-/]|{_VARIABLE})*(?:@[A-Za-z0-9]+)?"
WORD = re.compile(rf"(?:[A-Za-z_~]|\.{{0,2}}/|{_VARIABLE}){_REST}", re.ASCII)  # a word, a path, or RUN@CHECKPOINT
DIGIT_WORD = re.compile(rf"[0-9][0-9_]*[A-Za-z]{_REST}", re.ASCII)  # such as 2024_run, which Python cannot read either
LITERAL_WORDS = {"True": True, "False": False, "None": None}
MOST_DIGITS = 64  # limit for round(): rounding to millions of digits takes minutes


def _round(number: Any, digits: Any = None) -> Any:
    if digits is not None and abs(digits) > MOST_DIGITS:
        raise CfgError(f"rounds to more than {MOST_DIGITS} digits.")
    return round(number, digits)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs, "len": len, "max": max, "min": min, "round": _round, "sum": sum,
}  # fmt: skip
UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def without_comment(text: str) -> str:
    """A bare word without the comment after it; in expressions Python's parser skips comments."""
    return text.partition(" #")[0].strip()


def evaluate(text: str) -> Any:
    """Evaluate ``text`` to a number, text, True, False, None, or lists and tuples of them.

    Raises:
        CfgError: if the value is anything else, too large, or not finite.
    """
    text = text.strip()
    if len(text) > MAX_LENGTH:
        raise CfgError(f"is {len(text):,} characters long; at most {MAX_LENGTH:,} are allowed.")
    if WORD.fullmatch(word := without_comment(text)):
        return LITERAL_WORDS.get(word, word)
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if DIGIT_WORD.fullmatch(word):
            return word
        raise CfgError(
            "is no value: write a number, a list, an expression such as [1] * 3 + [2], or text in quotes."
        ) from error
    try:
        return _value(tree.body, 0)
    except RecursionError as error:  # from ast.unparse of a refused expression
        raise CfgError(f"is nested more than {MAX_DEPTH} deep.") from error


def _value(node: ast.expr, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise CfgError(f"is nested more than {MAX_DEPTH} deep.")
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return _bounded(value)
        case ast.List(elts=elements):
            return _bounded([_value(e, depth + 1) for e in elements])
        case ast.Tuple(elts=elements):
            return _bounded(tuple(_value(e, depth + 1) for e in elements))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in UNARY:
            return _apply(UNARY[type(op)], _value(operand, depth + 1))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            return _binary(type(op), _value(left, depth + 1), _value(right, depth + 1))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            return _apply(FUNCTIONS[name], *(_value(a, depth + 1) for a in args))
        case ast.Name(id=name):
            if name not in LITERAL_WORDS:
                raise CfgError(f"uses the name {name!r} inside an expression; put text in quotes.")
            return LITERAL_WORDS[name]
    raise CfgError(
        f"contains {ast.unparse(node)[:60]!r}, which is not allowed; use numbers, text in quotes, lists, tuples, "
        f"+ - * / // % ** and {', '.join(FUNCTIONS)}."
    )


def _binary(op: type[ast.operator], left: Any, right: Any) -> Any:
    if op is ast.Pow:
        if abs(right) > 64 if isinstance(right, int | float) else True:
            raise CfgError("raises to a power beyond 64.")
    elif op is ast.Mult:
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, list | tuple | str) and isinstance(times, int):
                _check_size((len(sequence) if isinstance(sequence, str) else _size(sequence)) * times)
    elif op is ast.Mod and isinstance(left, str):
        raise CfgError("formats text, which is not allowed.")
    return _apply(BINARY[op], left, right)


def _apply(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return _bounded(function(*arguments))
    except ZeroDivisionError as error:
        raise CfgError("divides by zero.") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise CfgError(f"cannot be computed: {error}.") from error


def _bounded(value: Any) -> Any:
    match value:
        case bool() | None:
            return value
        case int():
            if value.bit_length() > MAX_BITS:
                raise CfgError(f"holds a number of more than {MAX_BITS} bits.")
        case float():
            if not math.isfinite(value):
                raise CfgError("is not a finite number.")
        case str():
            _check_size(len(value))
        case list() | tuple():
            _check_size(_size(value))
        case _:
            raise CfgError(f"gives a {type(value).__name__}, which no setting takes.")
    return value


def _size(value: Any) -> int:
    return 1 + sum(map(_size, value)) if isinstance(value, list | tuple) else 1


def _check_size(size: int) -> None:
    if size > MAX_SIZE:
        raise CfgError(f"holds more than {MAX_SIZE:,} elements.")
