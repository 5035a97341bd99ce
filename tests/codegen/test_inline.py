"""Clauses that only count are increments in the stub; all others are thunks."""

from __future__ import annotations

import pytest

from probekit.isa.decode import decode_run
from tests.codegen.built_program import NOP5, RET, Function
from tests.codegen.compared import compare
from tests.codegen.emulated_kernel import (
    GS_BASE,
)
from tests.codegen.machine import Machine


def test_nothing_is_counted_after_exit() -> None:
    """An increment in the stub does not look at the activity word, so beside exit() there is none."""
    text = "fbt::f0: { @ = count(); } fbt::f1: { exit(0); }"
    functions = (Function(clauses=(0,)), Function(clauses=(1,)))
    guest = Machine(text, functions)
    assert guest.inline == (None, None)
    guest.fire(0)
    guest.fire(1)
    guest.fire(0)
    assert guest.table(0) == {(): (1,)}
    assert Machine(text, functions[:1]).inline == ((0,),)


@pytest.mark.parametrize(
    "text",
    [
        "fbt::: { @ = count(); }",
        "fbt::: { @[probefunc] = count(); }",
        "fbt::: { @a = count(); } fbt::: { @b = count(); }",
    ],
)
def test_counts_alone_are_increments(text: str) -> None:
    """4 or 5 instructions in the stub, no thunk, and every site its own word."""
    functions = (Function(), Function(NOP5 + RET, "return"))
    guest = Machine(text, functions)
    assert None not in guest.inline and guest.image.thunks == {} and guest.image.code == b""
    for function, times in ((0, 3), (1, 2)):
        for _ in range(times):
            fired = guest.fire(function, count=True)
            assert (fired.fault, fired.bad) == (0, ())
            assert fired.steps <= 6
    expected = {("f0",): (3,), ("f1",): (2,)} if "probefunc" in text else {(): (5,)}
    for plan in guest.program.aggregations:
        assert guest.table(plan.index) == expected


@pytest.mark.parametrize(
    "text",
    [
        "fbt::: /arg0/ { @ = count(); }",
        "fbt::: { @ = sum(1); }",
        "fbt::: { @[execname] = count(); }",
        "fbt::: { @ = count(); @b = count(); }",
        "fbt::: { @ = count(); trace(1); }",
    ],
)
def test_what_does_more_than_count_is_a_thunk(text: str) -> None:
    assert Machine(text).inline == (None,)


SLOTS = (0x2E0C0, 0x7FFFF000, 0x80000000, 0x6070_1122_3340, -0x2000, -(1 << 31), -(1 << 31) - 0x1000, -(1 << 40))


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("preemptible", [False, True])
def test_the_cpus_block_is_found_by_every_form_of_its_slot(slot: int, preemptible: bool) -> None:
    options = {"slot": slot, "preemptible": preemptible, "gs_base": GS_BASE}
    compare("fbt::: { @[arg0] = sum(arg1); trace(pid); }", (1, 2), (1, 3), **options)
    guest = Machine("fbt::: { @ = count(); }", **options)
    assert guest.inline != (None,)
    for _ in range(3):
        fired = guest.fire()
        assert (fired.fault, fired.bad) == (0, ())
    assert guest.table(0) == {(): (3,)}


def test_shared_words_are_locked_where_tasks_are_preempted() -> None:
    """In the stub, and in a thunk that counts in the same words: a task may have moved to another CPU meanwhile."""
    text = """fbt::f0: { @[probefunc] = count(); }
        fbt::f1: { @[probefunc] = count(); trace(1); } fbt::f1: { @k[arg0] = count(); }"""
    functions = (Function(clauses=(0,)), Function(clauses=(1, 2)))
    for preemptible, locked in ((True, 2), (False, 0)):
        guest = Machine(text, functions, preemptible=preemptible)
        assert guest.inline == ((0,), None)
        found = [i for i in decode_run(guest.code, 0xFFFFFFFFC0000000) if i.raw.startswith(b"\xf0")]
        assert len(found) == locked
        guest.fire(0)
        guest.fire(1)
        assert guest.table(0) == {("f0",): (1,), ("f1",): (1,)}
