"""Several instructions under one jump: where they may be, and that nobody can tell them from the originals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.emulator import DATA, DONE, STUBS, TEXT, Emulator

from probekit.isa.assemble import assemble
from probekit.patch.detours import compose_stub, site_edit
from probekit.patch.insn_sites import instruction_sites
from probekit.patch.jump_windows import as_trap, jump_window, side_entries
from probekit.patch.sites import InsnSite, TextFacts

F = TEXT + 0x100
G = TEXT + 0x800
COLD = TEXT + 0x900
FACTS = TextFacts(trapping=True, jump_tables=False, side_entries=())
COUNTER = DATA + 0x80
BODY = assemble(f"pushfq; push rax; mov rax, {COUNTER:#x}; inc qword ptr [rax]; pop rax; popfq", 0)
G_CODE = bytes.fromhex("48c7c077000000 c3cccccccc")  # mov rax, 0x77; ret


def rel32(addr: int, size: int, target: int) -> str:
    return (target - addr - size & 0xFFFFFFFF).to_bytes(4, "little").hex()


def window(code: str, offset: int = 0, facts: TextFacts = FACTS, cold: str = "") -> InsnSite | str:
    parts = [(COLD, bytes.fromhex(cold))] if cold else []
    return jump_window(instruction_sites(F, bytes.fromhex(code), facts, parts), offset, facts)


def test_as_many_as_a_jump_needs() -> None:
    # push rbp; mov rbp, rsp; push r12; push rbx; pop ...; ret
    code = "55 4889e5 4154 53 5b 415c 5d c3"
    assert window(code) == InsnSite(F, bytes.fromhex("55 4889e5 4154"), F, False, 1)
    assert window(code, 1) == InsnSite(F + 1, bytes.fromhex("4889e5 4154"), F, False, 3)
    site = window(code)
    assert isinstance(site, InsnSite) and list(site.interior) == [F + n for n in range(1, 6)]
    assert as_trap(site) == InsnSite(F, b"\x55", F, True) and list(as_trap(site).interior) == []


@pytest.mark.parametrize(
    ("code", "offset", "facts", "reason"),
    [
        ("55 53 5b 5d c3", 1, FACTS, "the function ends there"),
        ("55 53 fb 5b 5d c3", 0, FACTS, "cannot be moved"),  # sti
        ("eb04 55 53 5b 5d 90 90 c3", 2, FACTS, "a branch lands inside"),  # jmp to pop rbp
        ("55 53 5b 5d 90 90 c3", 0, replace(FACTS, hidden_jumps=((F, F + 3),)), "a branch lands inside"),
        ("55 53 5b 5d 90 90 c3", 0, replace(FACTS, side_entries=(F + 2,)), "a branch lands inside"),
        ("55 53 5b 5d 90 90 c3", 0, replace(FACTS, side_entries=None), "not every jump"),
        ("55 53 5b 5d 90 90 c3", 0, replace(FACTS, faulting=frozenset({F + 1}), fixups=True), "by its address"),
        ("55 e8" + rel32(F + 1, 5, G) + "5d c3", 0, replace(FACTS, jump_tables=True), ""),
        ("55 53 ffd0 5b 5d c3", 0, FACTS, "return into"),  # call rax; pop rbx
        ("48ffc9 75fb 90 90 c3", 0, FACTS, "jumps back"),  # dec rcx; jne to it
        ("55 53 5b 5d ffe0", 0, replace(FACTS, jump_tables=True), "not every jump"),
    ],
)
def test_where_it_may_not_be(code: str, offset: int, facts: TextFacts, reason: str) -> None:
    found = window(code, offset, facts)
    assert isinstance(found, InsnSite) if not reason else isinstance(found, str) and reason in found, found


def test_a_jump_from_the_cold_part() -> None:
    code = "55 53 5b 5d 90 90 c3"
    assert isinstance(window(code), InsnSite)
    assert window(code, cold="90 e9" + rel32(COLD + 1, 5, F + 2)) == "a branch lands inside its 5 bytes"
    assert isinstance(window(code, cold="90 e9" + rel32(COLD + 1, 5, F + 5)), InsnSite)


def test_side_entries_are_jumps_into_the_middle_of_others() -> None:
    functions = [
        (F, bytes.fromhex("0f84" + rel32(F, 6, G + 3) + "e9" + rel32(F + 6, 5, G))),
        (G, bytes.fromhex("55 53 eb01 5d c3")),  # its own branches are no business of others
    ]
    assert side_entries(functions, frozenset({F, G})) == (G + 3,)


CASES = [
    "55 4889e5 4154 415c 5d c3cccc",
    "4801f8 4885c0 7402 f7d8 c3cccc",  # add rax, rdi; test rax, rax; je +2; neg eax; ret
    "53 e8" + rel32(F + 1, 5, G) + "5b c3",  # a call is the last: it returns to the original
    "85ff e304 4883c007 90 c3",  # test edi, edi; jrcxz +4; add rax, 7
    "488b05" + rel32(F, 7, DATA) + "90 c3",
]


@pytest.mark.parametrize("code", CASES)
@pytest.mark.parametrize("form", ["jump", "trap"])
@given(rax=st.integers(0, 1 << 64), rdi=st.integers(-3, 3), rcx=st.integers(0, 2))
def test_nobody_can_tell(code: str, form: str, rax: int, rdi: int, rcx: int) -> None:
    """The jump, and the trap that leads to the same stub: a copy of all the instructions."""
    raw = bytes.fromhex(code)
    site = window(code)
    assert isinstance(site, InsnSite)
    stub = compose_stub(site, STUBS, BODY)
    regs = {"rax": rax, "rdi": rdi, "rcx": rcx, "rbx": 5, "rbp": 6}
    data = (0x123456789).to_bytes(8, "little")
    original = Emulator({F: raw, G: G_CODE}, data).run(F, regs=regs)
    if form == "jump":
        edit = site_edit(site, STUBS)
        assert edit.old == raw[: len(edit.old)] and edit.new[0] == 0xE9
        patched = edit.new + raw[len(edit.old) :]
        start = F
    else:  # whoever hits the int3 is sent to the stub; the rest of the function is as it was
        edit = site_edit(site._replace(trap=True), STUBS)
        assert edit.new == b"\xcc" + edit.old[1:]
        patched, start = edit.new + raw[len(edit.old) :], STUBS
    run = Emulator({F: patched, G: G_CODE, STUBS: stub}, data).run(start, regs=regs)
    assert (run.regs, run.flags, run.rip, run.fault) == (original.regs, original.flags, DONE, 0)
    assert int.from_bytes(run.data[0x80:0x88], "little") == 1
