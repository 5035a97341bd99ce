"""Arithmetic, comparison and conversion: the code computes what the host's evaluator computes, at every edge."""

from __future__ import annotations

from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.buffers.layout import FaultKind
from probekit.codegen.arithmetic import CONDITIONS, OPPOSITE
from probekit.ir.ops import CmpOp
from tests.codegen.compared import Compared, compare
from tests.codegen.machine import Machine
from tests.codegen.records import fault, fired
from tests.codegen.scripts import ints

_OPERATORS = ("+", "-", "*", "&", "|", "^", "<<", ">>", "==", "!=", "<", "<=", ">", ">=")


@lru_cache
def _both(body: str) -> Compared:
    return Compared(f"fbt::: {{ {body} }}", bufsize=1 << 14)


@pytest.mark.parametrize("signed", ["int64_t", "uint64_t"])
@settings(max_examples=40)
@given(ints, ints)
def test_every_operator_of_two_values_computes_what_the_host_computes(signed: str, left: int, right: int) -> None:
    body = " ".join(f"trace(({signed})arg0 {operator} ({signed})arg1);" for operator in _OPERATORS)
    _both(body).fire(left, right)


@pytest.mark.parametrize("signed", ["int64_t", "uint64_t"])
@settings(max_examples=40)
@given(ints, ints)
def test_a_division_computes_what_the_host_computes_or_faults_as_it_does(signed: str, left: int, right: int) -> None:
    _both(f"trace(({signed})arg0 / ({signed})arg1); trace(({signed})arg0 % ({signed})arg1);").fire(left, right)


def test_the_smallest_number_divided_by_minus_one_wraps_and_does_not_trap() -> None:
    compare("fbt::: { trace(arg0 / arg1); trace(arg0 % arg1); }", (-(1 << 63), -1), (-(1 << 63), 1), (7, -1))


def test_a_division_by_zero_is_a_fault_of_its_action() -> None:
    for operator in "/%":
        record = fired(Machine(f"fbt::: {{ trace(1); trace(arg0 {operator} arg1); }}"), rdi=5, rsi=0)
        assert (fault(record)[0], fault(record)[2]) == (FaultKind.DIVZERO, 1)


@pytest.mark.parametrize("count", [0, 1, 31, 32, 63, 64, 65, 127, -1])
def test_a_shift_takes_its_count_modulo_64_constant_or_not(count: int) -> None:
    constant = str(count) if count >= 0 else f"({count})"
    compare(
        f"fbt::: {{ trace(arg0 << {constant}); trace((uint64_t)arg0 >> {constant}); trace(arg0 >> arg1); }}",
        (-1, count),
        (0x0123456789ABCDEF, count),
    )


@settings(max_examples=60)
@given(ints)
def test_each_conversion_keeps_the_low_bits_and_extends_their_sign(value: int) -> None:
    types = ("char", "unsigned char", "int16_t", "uint16_t", "int32_t", "uint32_t", "int64_t", "uint64_t")
    _both(" ".join(f"trace((int64_t)({name})arg0);" for name in types)).fire(value)


def test_a_comparison_is_a_value_as_well_as_a_condition() -> None:
    compare(
        """fbt::: /arg0 < arg1/ { trace(arg0 < arg1); trace((arg0 == arg1) + 5); }
        fbt::: /execname == "bash"/ { trace(execname != "bas"); trace(execname < "c"); }""",
        (1, 2),
        (2, 1),
        (-1, 1),
        (1, 1),
        comm=b"bash",
    )


def test_every_comparison_has_a_condition_and_its_opposite() -> None:
    assert CONDITIONS.keys() == set(CmpOp)
    for condition in CONDITIONS.values():
        assert OPPOSITE[OPPOSITE[condition]] == condition != OPPOSITE[condition]


@given(st.integers(0, 1), st.integers(0, 1), st.integers(0, 1))
def test_opposite_conditions_never_hold_together(carry: int, zero: int, sign: int) -> None:
    holds = {"e": zero, "l": sign, "le": sign | zero, "b": carry, "be": carry | zero}
    holds |= {"ne": not zero, "ge": not sign, "g": not (sign | zero), "ae": not carry, "a": not (carry | zero)}
    assert all(bool(holds[one]) != bool(holds[other]) for one, other in OPPOSITE.items())
