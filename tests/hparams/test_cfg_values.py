"""Expressions of a cfg: what they may say, and that nothing else gets through."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvae_torch.cfg.expressions import MAX_SIZE, evaluate
from lvae_torch.errors import CfgError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("-2.5", -2.5), ("1/2", 0.5), ("7 // 2", 3), ("7 % 4", 3), ("2 ** 10", 1024), ("1e-3", 1e-3),
        ("1_000", 1000), ("True", True), ("None", None), ("'text'", "text"), ("word", "word"), ("a-b.c", "a-b.c"),
        ("dumps/x", "dumps/x"), ("../x/y", "../x/y"), ("/tmp/x", "/tmp/x"), ("./x", "./x"),
        ("~", "~"), ("~/dumps", "~/dumps"), ("~somebody/x # theirs", "~somebody/x"), ("$HOME/x", "$HOME/x"),
        ("${HOME}/x-1", "${HOME}/x-1"), ("/data/$USER/x", "/data/$USER/x"), ("runs_${N}.b", "runs_${N}.b"),
        ("/2024/x", "/2024/x"), ("./2024", "./2024"), ("../1", "../1"), ("/data/2024_run", "/data/2024_run"),
        ("2024_run", "2024_run"), ("2d_prior@best", "2d_prior@best"), ("3x/y-2.z # a path", "3x/y-2.z"),
        ("1e-3", 0.001), ("0x10", 16), ("1_0/2", 5.0), ("1e3/4", 250.0), ("2-1", 1), (".5", 0.5),
        ("my_run@12000", "my_run@12000"), ("a-b.c@best # the best one", "a-b.c@best"),
        ("[1] * 3 + [2]", [1, 1, 1, 2]), ("(1, 'linear')", (1, "linear")), ("()", ()), ("[]", []),
        ("max(3, 7)", 7), ("min([4, 2])", 2), ("sum([1, 2])", 3), ("len([1, 2])", 2), ("round(2.6)", 3), ("abs(-1)", 1),
        ("('linear', 0.7, 0.9)", ("linear", 0.7, 0.9)), ("[32] * 2 * 2", [32] * 4), ("[None, True]", [None, True]),
        ("--3", 3), ("'a' 'b'", "ab"), ("[[1, 2]] * 2", [[1, 2], [1, 2]]),
    ],
)  # fmt: skip
def test_values(text: str, value: Any) -> None:
    assert evaluate(text) == value
    assert type(evaluate(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')", "open('x')", "().__class__", "[x for x in [1]]", "lambda: 1", "a + 1", "f'{1}'",
        "1 if 1 else 2", "9 ** 9 ** 9", "2 ** 65", "[0] * 10**9", "'x' * 10**9", "10**9 * [0]", "[[0] * 9000] * 9000",
        "1e400", "1e308 * 10", "float('nan')", "1 / 0", "5 % 0", "'%s' % 1", "[" * 200 + "]" * 200, "-" * 5000 + "1",
        "1" * 20_000, "[1,", "1 2", "max()", "max(1, key=len)", "sum(['a'])", "b'bytes'", "{1: 2}", "{1}", "...", "1j",
        "(-1) ** 0.5", "max(*[1])", "1 < 2", "not 1", "[1][0]", "x := 1", "", "'a' + 1", "[1] ** 2", "'ab' * 99999",
        "not " * 2400 + "1", "lambda: " * 1200 + "1", "1 if 1 else " * 800 + "1", "1 + " * 2400 + "1",
        "a @ b", "a@b@c", "1@2", "a@",
        "1.2.3", "01", "2024-01-01", "1/", "1..2", "2024/x y", "2x + 1", "[2x]", "~ x", "$", "${}", "a{b}", "{a}",
        "2x!", "2024-run", "2024/run", "3-x", "1__0", "-2x", "-$x", "1e400x y",
    ],
)  # fmt: skip
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(CfgError):
        evaluate(text)


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_gives_a_value_or_a_message(text: str) -> None:
    try:
        value = evaluate(text)
    except CfgError as error:
        assert str(error)
    else:
        assert isinstance(value, bool | int | float | str | list | tuple | None)
        assert not isinstance(value, float) or math.isfinite(value)


ATOMS = st.sampled_from(["1", "0", "-3", "2.5", "1e200", "'ab'", "[1]", "(2, 3)", "None", "True", "99999999999"])


OPERATORS = st.sampled_from(["+", "-", "*", "/", "//", "%", "**"])
ARITHMETIC = st.recursive(
    ATOMS, lambda inner: st.builds(lambda a, op, b: f"({a} {op} {b})", inner, OPERATORS, inner), max_leaves=6
)


@given(ARITHMETIC)
@settings(max_examples=150, deadline=None)
def test_any_arithmetic_is_pythons_own_or_refused(text: str) -> None:
    try:
        value = evaluate(text)
    except CfgError:
        return
    assert value == eval(text)  # made of the atoms above
    assert not hasattr(value, "__len__") or len(value) <= MAX_SIZE


@pytest.mark.parametrize("text", ["round(5, -10**7)", "round(0.5, 10**9)", "[[1] * 9990] * 9990", "[[1] * 99] * 999"])
def test_what_would_take_minutes_is_refused_at_once(text: str) -> None:
    with pytest.raises(CfgError, match=r"digits|elements"):
        evaluate(text)
