"""Clauses: predicates, branches and what several clauses of one firing leave each other."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codegen.built_program import Function
from tests.codegen.compared import Compared, compare
from tests.codegen.machine import Machine


def test_a_predicate_decides_about_its_own_clause_only() -> None:
    compare(
        "fbt::: /arg0/ { @[1] = count(); trace(1); } fbt::: /!arg0/ { @[1] = count(); trace(2); } fbt::: { trace(3); }",
        (0,),
        (1,),
        (-1,),
    )


@pytest.mark.parametrize(
    "condition",
    ["arg0 && arg1", "arg0 || arg1", "arg0 ^^ arg1", "!(arg0 && !arg1)", "arg0 ? arg1 : !arg1", "(arg0 || 10 / arg1)"],
)
def test_a_condition_is_evaluated_only_as_far_as_needed(condition: str) -> None:
    compare(
        f"int64_t x; fbt::: /{condition}/ {{ trace(1); }} fbt::: {{ trace({condition}); x += {condition}; }}",
        (0, 0),
        (0, 1),
        (1, 0),
        (5, -1),
    )


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(-2, 4), st.integers(-2, 4)), min_size=1, max_size=6))
def test_nested_branches_take_the_way_of_the_host(firings: list[tuple[int, int]]) -> None:
    both = Compared(
        """int x; fbt::: {
            if (arg0 > 0) { if (arg1 > 0) { x = 1; } else if (arg1 == 0) { x = 2; } else { x = 3; } trace(x); }
            else { if (arg1) { trace(arg1); } x = 4; }
            this->n = x; trace(this->n + arg0);
        }"""
    )
    for args in firings:
        both.fire(*args)
    both.check()


def test_clause_local_variables_pass_from_clause_to_clause_of_one_firing() -> None:
    compare(
        """this int64_t n; this string s;
        fbt::: { this->n = arg0; this->s = arg0 ? "set" : ""; } fbt::: /this->n/ { trace(this->n); trace(this->s); }
        fbt::: { this->n++; @[this->n] = count(); }""",
        (5,),
        (0,),
        (-1,),
    )


def test_a_fault_ends_its_clause_and_the_next_one_runs() -> None:
    both = compare("fbt::: { x = 1 / arg0; y = 5; } fbt::: { y += 2; trace(y); }", (0,), (1,), (0,))
    assert both.faults == 2


def test_each_site_runs_the_clauses_of_its_own_probe_in_their_order() -> None:
    guest = Machine(
        "int64_t x; fbt::f0: { x = 2 * x + 1; } fbt::f1: { x = 3 * x; } fbt::f0: { x = 5 * x; }",
        functions=(Function(clauses=(0, 2)), Function(clauses=(1,))),
    )
    seen = []
    for function in (0, 1, 0):
        guest.fire(function)
        seen.append(guest.globals_()[0])
    assert seen == [5, 15, 155]
