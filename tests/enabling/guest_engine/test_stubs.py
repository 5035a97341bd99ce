"""Stubs: what is inline, who shares a thunk, and the upper bound of the code."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from probekit.errors import UnsupportedError
from probekit.lang.diagnostics import CompileError
from tests.codegen.built_program import NOP5, RET, Function, function_addr
from tests.codegen.emulated_kernel import CODE, IF, G
from tests.codegen.machine import Machine, jump
from tests.codegen.scripts import scripts

RETURN = Function(NOP5 + RET, "return")


def test_sites_with_the_same_clauses_share_a_thunk() -> None:
    text = "fbt::: { trace(arg0); } fbt::: { @ = sum(arg0); } fbt::: { @c[probefunc] = count(); }"
    functions = [
        *[Function(clauses=(0, 1))] * 3,
        Function(NOP5 + RET, "return", (0, 1)),
        Function(clauses=(0,)),
        Function(clauses=(2,)),
        Function(clauses=(1, 2)),
    ]
    guest = Machine(text, functions)
    assert set(guest.image.thunks) == {
        ("entry", (0, 1)),
        ("return", (0, 1)),
        ("entry", (0,)),
        ("entry", (1, 2)),
    }
    assert guest.inline == (None, None, None, None, None, (1,), None)
    for n in range(len(functions)):
        assert guest.fire(n, rdi=2, rax=2).fault == 0
    assert len(guest.drain()) == 5
    assert guest.table(1) == {("f5",): (1,), ("f6",): (1,)}


def test_edits_lead_into_our_code() -> None:
    guest = Machine("fbt::: { @ = count(); }", [Function(), RETURN, Function()])
    for edit, site in zip(guest.edits, guest.sites, strict=True):
        assert (edit.addr, edit.old) == (site.site.addr, site.site.old)
        target = edit.addr + 5 + int.from_bytes(edit.new[1:5], "little", signed=True)
        assert edit.new[0] == 0xE9 and CODE <= target < CODE + len(guest.code)  # jmp rel32


@pytest.mark.parametrize("clause", ["fbt::: { trace(0); }", "fbt::: { @ = count(); trace(0); }"])
def test_probes_at_one_place_fire_from_the_outside_in_and_back(clause: str) -> None:
    """The kinds are given in another order, so that it is not theirs that decides."""
    kinds = ("sysret", "instruction", "return", "syscall", "entry")
    functions = [Function(NOP5 + "c20000cccccc", "entry", (0,))]  # nop5; ret 0
    places = {"instruction": (0, 5)}
    functions += [Function("", kind, (0,), 0, at) for kind in kinds[:-1] for at in places.get(kind, (0,))]
    guest = Machine(clause, functions)
    assert guest.fire(0).fault == 0
    fired = [guest.sites[record.site] for record in guest.drain()]
    assert [(site.probe.kind, site.offset) for site in fired] == [
        ("syscall", 0),
        ("entry", 0),
        ("instruction", 0),
        ("instruction", 5),
        ("return", 5),
        ("sysret", 5),
    ]


def test_an_instruction_that_leaves_only_at_times_fires_always_and_before_the_return() -> None:
    """jz g: at 5 the instruction fires, and the function's return only when the jump is taken."""
    code = NOP5 + jump("0f84", function_addr(0) + 5, G) + RET
    functions = [Function(code, "return", (0,)), Function("", "instruction", (0,), 0, 5)]
    guest = Machine("fbt::: { trace(0); }", functions)
    for flags, expected in (
        (IF | 2, [("instruction", 5), ("return", 11)]),
        (IF | 2 | 0x40, [("instruction", 5), ("return", 5)]),
    ):
        assert guest.fire(0, flags=flags).fault == 0
        fired = [guest.sites[record.site] for record in guest.drain()]
        assert [(site.probe.kind, site.offset) for site in fired] == expected


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(scripts(), st.sampled_from((0x2E0C0, -0x2000, 1 << 40)), st.booleans())
def test_the_bound_holds(text: str, slot: int, preemptible: bool) -> None:
    """The engine allocates before it knows an address; the code must never turn out larger."""
    try:
        guest = Machine(text, [Function(), RETURN], slot=slot, preemptible=preemptible, aggsize=1 << 14)
    except (CompileError, UnsupportedError):
        assume(False)
    assert len(guest.code) <= guest.bound
