"""The frame of a thunk: where registers and clause-local integers are, and its bound."""

from __future__ import annotations

import pytest

from probekit.codegen.frame import Frame, plan_frame
from probekit.errors import UnsupportedError
from probekit.ir.build import compile_program
from tests.codegen.machine import Machine


def test_a_program_that_needs_too_much_stack_is_refused() -> None:
    chosen = ", ".join(f"arg{n % 6} ? {n} : -{n}" for n in range(300))
    with pytest.raises(UnsupportedError) as caught:
        Machine(f"fbt::: {{ @[{chosen}] = count(); }}")
    assert caught.value.feature == "stack"


def _frame(text: str, *, measured: bool = False) -> Frame:
    program = compile_program(text)
    return plan_frame(program.clauses, "entry", program, measured=measured)


@pytest.mark.parametrize("measured", [False, True])
def test_the_parts_of_a_frame_lie_apart_and_inside_of_it(measured: bool) -> None:
    frame = _frame(
        """this int64_t a; this int b; fbt:::entry { this->a = arg0 * arg1 - arg2 * arg3; this->b = arg0; }
        fbt:::entry { trace(this->a - this->b); }""",
        measured=measured,
    )
    words = [*frame.local_slots.values(), frame.record, *([frame.clock] if measured else [])]
    assert len(frame.local_slots) == 2
    assert len(set(words)) == len(words) and all(word % 8 == 0 for word in words)
    assert max(words) + 8 <= frame.size and frame.size % 16 == 0
    assert min(words) >= 8, "below them is the slot of the first product"


def test_a_frame_has_no_room_for_locals_that_are_not_used() -> None:
    assert _frame("this int64_t a; fbt:::entry { trace(arg0); }").local_slots == {}


def test_clauses_share_their_slots_and_the_largest_decides() -> None:
    large = "fbt:::entry { trace((arg0 * arg1) - (arg2 * arg3)); }"
    assert _frame(large + large) == _frame(large)
    assert _frame(large).record >= _frame("fbt:::entry { trace(arg0); }").record
