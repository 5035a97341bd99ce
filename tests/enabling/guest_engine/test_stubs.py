"""Stubs: what is inline, who shares a thunk, and the upper bound of the code."""

from __future__ import annotations

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from probekit.errors import UnsupportedError
from probekit.lang.diagnostics import CompileError
from tests.codegen.built_program import NOP5, RET, Function
from tests.codegen.emulated_kernel import CODE
from tests.codegen.machine import Machine
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


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(scripts(), st.sampled_from((0x2E0C0, -0x2000, 1 << 40)), st.booleans())
def test_the_bound_holds(text: str, slot: int, preemptible: bool) -> None:
    """The engine allocates before it knows an address; the code must never turn out larger."""
    try:
        guest = Machine(text, [Function(), RETURN], slot=slot, preemptible=preemptible, aggsize=1 << 14)
    except (CompileError, UnsupportedError):
        assume(False)
    assert len(guest.code) <= guest.bound
