"""Aggregations in the guest: each function, keyed or not, holds what the host's evaluator holds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.buffers.aggs import AGG_FUNCS
from probekit.buffers.layout import DenseStore, TableStore
from probekit.codegen.aggregate import llquantize_bounds
from probekit.ir.build import compile_program
from tests.codegen.built_program import NOP5, RET, Function
from tests.codegen.compared import Compared
from tests.codegen.machine import Machine
from tests.codegen.scripts import ints

_CALLS = {
    "count": "count()",
    "sum": "sum(arg0)",
    "avg": "avg(arg0)",
    "min": "min(arg0)",
    "max": "max(arg0)",
    "stddev": "stddev(arg0)",
    "quantize": "quantize(arg0)",
    "lquantize": "lquantize(arg0, -20, 60, 7)",
    "llquantize": "llquantize(arg0, 10, 0, 6, 20)",
}
_KEYS = {
    "none": "",
    "site": "[probefunc]",
    "integers": "[arg1, pid]",
    "strings": '[execname, arg1 > 2 ? probename : "x"]',
}


def test_every_aggregating_function_is_among_these() -> None:
    assert _CALLS.keys() == AGG_FUNCS.keys()


@pytest.mark.parametrize("key", _KEYS)
@pytest.mark.parametrize("func", _CALLS)
@settings(max_examples=6)
@given(st.lists(st.tuples(ints, st.integers(0, 4), st.integers(0, 1)), min_size=1, max_size=8))
def test_each_function_and_key_holds_what_the_host_holds(
    func: str, key: str, firings: list[tuple[int, int, int]]
) -> None:
    both = Compared(
        f"fbt::: {{ @{_KEYS[key]} = {_CALLS[func]}; }}",
        functions=(Function(), Function(NOP5 + RET, "entry")),
        aggsize=1 << 16,
    )
    for value, number, function in firings:
        both.fire(value, number, function=function)
    both.check()


@pytest.mark.parametrize("func", ["quantize", "lquantize", "llquantize"])
def test_a_weight_is_added_instead_of_one(func: str) -> None:
    both = Compared(f"fbt::: {{ @ = {_CALLS[func][:-1]}, arg1); }}")
    for value, weight in ((1, 5), (1, -2), (50, 3), (-7, 1 << 40)):
        both.fire(value, weight)
    both.check()


@pytest.mark.parametrize("params", ["10, 0, 6, 20", "10, 3, 5, 5", "2, 0, 61, 2", "10, 0, 3, 2"])
@settings(max_examples=40)
@given(ints)
def test_llquantize_puts_a_value_where_the_host_does(params: str, value: int) -> None:
    both = Compared(f"fbt::: {{ @ = llquantize(arg0, {params}); }}")
    for each in (value, -value, 999, -1000, -(1 << 63), (1 << 63) - 1, 0):
        both.fire(each)
    both.check()


def test_a_key_that_each_site_has_once_needs_no_table() -> None:
    context = Machine("fbt::: { @a = count(); @b[probefunc] = sum(arg0); @c[arg0] = count(); }").context
    assert [type(context.store(agg)) for agg in range(3)] == [DenseStore, DenseStore, TableStore]


def test_the_bounds_of_a_log_linear_quantization_rise() -> None:
    (plan,) = compile_program("fbt:::entry { @ = llquantize(arg0, 10, 0, 6, 20); }").aggregations
    bounds = llquantize_bounds(plan)
    assert list(bounds) == sorted(set(bounds))
    assert bounds[-1] == 10**7
