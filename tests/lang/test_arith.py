"""Arithmetic on constants: 64 bits, wrapping."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.lang.arith import COMPARE, compute, signed64, unsigned64

_MIN, _MAX = -(1 << 63), (1 << 63) - 1
_INT64 = st.integers(_MIN, _MAX)


@given(st.integers())
def test_both_readings_of_a_word_differ_by_2_to_the_64_at_most(value: int) -> None:
    assert signed64(value) == signed64(unsigned64(value))
    assert (signed64(value) - value) % (1 << 64) == 0
    assert _MIN <= signed64(value) <= _MAX
    assert 0 <= unsigned64(value) < 1 << 64


@pytest.mark.parametrize(
    ("op", "left", "right", "signed", "expected"),
    [
        ("add", _MAX, 1, True, _MIN),
        ("sub", 0, 1, False, (1 << 64) - 1),
        ("mul", 1 << 40, 1 << 40, True, 0),
        ("div", -7, 2, True, -3),
        ("div", -7, 2, False, _MAX - 3),
        ("div", _MIN, -1, True, _MIN),
        ("rem", -7, 2, True, -1),
        ("rem", _MIN, -1, True, 0),
        ("shl", 1, 65, True, 2),
        ("shr", -1, 63, True, -1),
        ("shr", -1, 63, False, 1),
        ("shr", 4, -63, False, 2),
    ],
)
def test_an_operation_wraps_as_the_machine_does(op: str, left: int, right: int, signed: bool, expected: int) -> None:
    assert compute(op, left, right, signed=signed) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("op", ["div", "rem"])
def test_a_division_by_zero_is_an_error(op: str) -> None:
    with pytest.raises(ZeroDivisionError):
        compute(op, 1, 0, signed=True)  # type: ignore[arg-type]


@given(left=_INT64, right=_INT64.filter(bool))
def test_quotient_and_remainder_make_up_the_dividend(left: int, right: int) -> None:
    quotient = compute("div", left, right, signed=True)
    remainder = compute("rem", left, right, signed=True)
    assert signed64(quotient * right + remainder) == left
    assert abs(remainder) < abs(right)
    assert remainder == 0 or (remainder < 0) == (left < 0)


@given(left=_INT64, right=_INT64)
def test_exactly_one_of_less_equal_and_greater_holds(left: int, right: int) -> None:
    assert sum(COMPARE[op](left, right) for op in ("lt", "eq", "gt")) == 1
