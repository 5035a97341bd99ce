"""D's types: conversions as in C, and where bit-fields are read."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.lang.types import (
    INT,
    LONG,
    UINT64,
    ArrayType,
    IntType,
    PointerType,
    StructMember,
    StructType,
    alignof,
    bit_place,
    literal_type,
    promote,
    same,
    sizeof,
    usual,
)

_INTEGERS = [
    IntType(f"{'' if signed else 'u'}int{bits}_t", bits, signed) for bits in (8, 16, 32, 64) for signed in (True, False)
]
_C = {(t.bits, t.signed): getattr(ctypes, f"c_{'' if t.signed else 'u'}int{t.bits}") for t in _INTEGERS}
_integers = st.sampled_from(_INTEGERS)


@given(_integers, st.integers(-(1 << 70), 1 << 70))
def test_a_value_is_converted_as_c_converts_it(t: IntType, value: int) -> None:
    assert t.wrap(value) == _C[t.bits, t.signed](value).value
    assert t.holds(value) == (t.wrap(value) == value)
    assert t.holds(t.wrap(value))


@given(_integers)
def test_a_narrow_integer_becomes_an_int_and_others_stay(t: IntType) -> None:
    assert promote(t) == (INT if t.bits < 32 else t)


@given(_integers, _integers)
def test_the_common_type_is_the_wider_one_and_of_two_as_wide_the_unsigned_one(a: IntType, b: IntType) -> None:
    common = usual(a, b)
    assert common.bits == max(32, a.bits, b.bits)
    assert common.signed == all(t.signed for t in (promote(a), promote(b)) if t.bits == common.bits)
    assert same(common, usual(b, a))


@given(st.integers(0, 500), st.integers(1, 32))
def test_a_bit_field_lies_inside_of_the_integer_in_which_it_is_read(offset: int, bits: int) -> None:
    at, unit, shift = bit_place(StructMember("b", INT, offset, bit_size=bits))
    assert 8 * at + shift == offset
    assert unit in (8, 16, 32, 64) and shift + bits <= unit


def test_sizes_and_alignments_are_those_of_the_abi() -> None:
    pair = StructType(
        "struct", "p", (StructMember("c", INT, 0), StructMember("l", LONG, 64)), 16, complete=True, align=0
    )
    assert [sizeof(t) for t in (INT, PointerType(INT), ArrayType(INT, 3), pair)] == [4, 8, 12, 16]
    assert [alignof(t) for t in (INT, PointerType(INT), ArrayType(INT, 3), pair)] == [4, 8, 4, 8]


@pytest.mark.parametrize(
    ("value", "decimal", "unsigned", "longs", "bits", "signed"),
    [
        (1, True, False, 0, 32, True),
        ((1 << 31) - 1, True, False, 0, 32, True),
        (1 << 31, True, False, 0, 64, True),
        (1 << 31, False, False, 0, 32, False),
        (1, True, True, 0, 32, False),
        (1, True, False, 1, 64, True),
        (1 << 63, False, False, 0, 64, False),
    ],
)
def test_a_literal_has_the_first_type_of_c_that_holds_it(
    value: int, decimal: bool, unsigned: bool, longs: int, bits: int, signed: bool
) -> None:
    t = literal_type(value, decimal=decimal, unsigned=unsigned, longs=longs)
    assert t is not None and (t.bits, t.signed) == (bits, signed)


def test_a_literal_that_no_type_holds_has_none() -> None:
    assert literal_type(1 << 64, decimal=False, unsigned=True, longs=2) is None
    assert UINT64.holds((1 << 64) - 1)
