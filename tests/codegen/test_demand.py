"""What the code of a program needs in the guest."""

from __future__ import annotations

import pytest

from probekit.codegen.demand import (
    Demand,
    action_routine,
    acts_on_guest,
    calls_panic,
    calls_stop,
    program_demand,
)
from probekit.ir.build import compile_program

NOTHING = Demand(
    strings=(), site_table=False, probe_names=False, site_addresses=False, llquantize_aggs=(), services=False
)


def demand(body: str) -> Demand:
    program = compile_program(f"fbt::f:entry {{ {body} }}")
    return program_demand(program, program.clauses)


@pytest.mark.parametrize(
    "body", ["trace(1);", "@[execname] = count();", "trace(probefunc);", "@[probefunc] = sum(pid);", "trace(epid);"]
)
def test_these_need_nothing(body: str) -> None:
    assert demand(body) == NOTHING


def test_strings_are_sorted_and_each_is_there_once() -> None:
    assert demand('trace(strjoin("b", "a")); trace(strlen("b"));').strings == (b"a", b"b")


def test_a_probe_name_that_is_read_is_in_the_site_table() -> None:
    found = demand("trace(strlen(probefunc));")
    assert (found.site_table, found.probe_names) == (True, True)
    found = demand("trace(id + 1);")
    assert (found.site_table, found.probe_names) == (True, False)


def test_bounds_are_in_memory_for_llquantize_alone() -> None:
    found = demand("@a = quantize(arg1); @b = llquantize(arg1, 10, 0, 3, 10); @c = lquantize(arg1, 0, 10, 1);")
    assert found.llquantize_aggs == (1,)


@pytest.mark.parametrize(
    ("body", "addresses"),
    [
        ("trace(*(int *)arg0);", False),
        ("trace(stringof((char *)arg0));", False),
        ("tracemem(arg0, 8);", False),
        ("copyin(arg0, 8);", False),
        ("trace(cwd);", False),
        ("chill(1);", False),
        ("stop();", False),
        ("@[stack()] = count();", True),
        ("trace(stackdepth);", True),
    ],
)
def test_these_call_into_the_kernel(body: str, addresses: bool) -> None:
    found = demand(body)
    assert found.services
    assert found.site_addresses == addresses


def test_actions_on_the_guest_are_found_in_the_record() -> None:
    def record(body: str):
        return compile_program(f"fbt::f:entry {{ {body} }}").clauses[0].record

    plain = record("trace(1);")
    assert not acts_on_guest(None)
    assert not acts_on_guest(plain)
    assert action_routine(0, plain) == ""
    both = record("chill(5); raise(9);")
    assert acts_on_guest(both)
    assert [action_routine(n, both) for n in range(2)] == ["chill", "send_signal"]
    assert (calls_stop(record("stop();")), calls_panic(record("stop();"))) == (True, False)
    assert (calls_stop(record("panic();")), calls_panic(record("panic();"))) == (False, True)
