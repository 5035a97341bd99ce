"""Records: a clause writes all of its fields or none, whatever is recorded and wherever it stops."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.buffers.layout import FaultKind, HeaderWord
from tests.codegen.compared import Compared, compare
from tests.codegen.emulated_kernel import KMEM
from tests.codegen.machine import Machine
from tests.codegen.records import fault, fired
from tests.codegen.scripts import ints


@settings(max_examples=20)
@given(st.lists(st.tuples(ints, ints), min_size=1, max_size=4))
def test_a_field_of_each_size_is_as_on_the_host(firings: list[tuple[int, int]]) -> None:
    both = Compared(
        """char c; short h; int i; struct p { int a; char b[3]; }; struct p o;
        fbt::: { c = arg0; h = arg0; i = arg1; o.a = arg1; o.b[1] = arg0;
            trace(c); trace(h); trace(i); trace(arg0); trace(o); trace(execname); trace(probename);
            printf("%d %s %x", arg1, arg0 ? probefunc : "", c); }"""
    )
    for args in firings:
        both.fire(*args)
    both.check()


def test_a_branch_that_does_not_record_writes_no_record() -> None:
    compare("fbt::: { if (arg0 > 3) { trace(arg0); } } fbt::: { if (arg0) { x = arg0; } }", (1,), (4,), (0,), (5,))


def test_a_fault_takes_the_place_of_the_whole_record() -> None:
    guest = Machine("fbt::: { trace(1); trace(2); trace(*(int *)arg0); trace(3); }")
    record = fired(guest, rdi=8)
    assert fault(record)[:3] == (FaultKind.BADADDR, 8, 2)
    assert fired(guest, rdi=KMEM).fault == 0


def test_what_was_assigned_before_a_fault_stays_assigned() -> None:
    compare("fbt::: { x = arg0; y = 10 / arg0; z = arg0; trace(z); }", (5,), (0,), (2,))


def test_a_record_without_room_does_not_run_its_clause() -> None:
    guest = Machine("int64_t x; fbt::: { x++; trace(x); } fbt::: { y++; }", bufsize=0)
    guest.fire()
    assert guest.word(HeaderWord.PRINCIPAL_DROPS) == 1
    assert sorted(guest.globals_().values()) == [0, 1]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 37])
def test_recorded_memory_is_read_at_its_own_size(size: int) -> None:
    compare(f"fbt::: {{ tracemem(arg0, 37, {size}); trace(7); }}", (KMEM + 3,), (KMEM,))


def test_no_record_is_shown_of_a_clause_that_only_assigns() -> None:
    guest = Machine("fbt::: { x = arg0; }")
    guest.fire(rdi=4)
    assert guest.drain() == [] and guest.word(HeaderWord.HEAD) == 0
