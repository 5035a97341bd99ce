"""Detours: byte-exact shapes, and their behaviour in an emulator: the body runs once, and nothing else changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.emulator import DATA, DONE, STUBS, TEXT, Emulator, Outcome

from probekit.isa.assemble import assemble
from probekit.patch.detours import RangeError, compose_stub, copied_slot, site_edit, stub_shape
from probekit.patch.find_exits import exit_sites
from probekit.patch.sites import EntrySite, ExitSite, Site, TextFacts, entry_site

F = TEXT + 0x100
G = TEXT + 0x800
NOP5 = "0f1f440000"
COUNTER = DATA + 0x80

# Counts, and spoils every flag: that must not show. It keeps rax as any body has to.
BODY = assemble(f"push rax; mov rax, {COUNTER:#x}; inc qword ptr [rax]; cmp rax, rax; pop rax", 0)

# mov rax, 0x77 (in G, so that it is seen that G ran); ret
G_CODE = bytes.fromhex("48c7c077000000 c3cccccccc")


def rel32(addr: int, size: int, target: int) -> str:
    return (target - addr - size & 0xFFFFFFFF).to_bytes(4, "little").hex()


def all_sites(code: bytes) -> list[Site]:
    facts = TextFacts(starts=frozenset({F, G}), jump_tables=False)
    entry = entry_site(F, code[:9], facts)
    found = exit_sites(F, code, facts)
    assert found.complete
    return [*([entry] if isinstance(entry, EntrySite) else []), *found.sites]


# name, code of F, registers; in each the body runs as often as there are sites on the way
CASES = {
    "ret": (NOP5 + "4801f8 c3cccccccc", {}),  # add rax, rdi; ret
    "ret_imm": (NOP5 + "c20800 cccc", {}),
    "ret_nops": (NOP5 + "c3 0f1f00 90", {}),
    "endbr": ("f30f1efa" + NOP5 + "c3cccccccc", {}),
    "tail_jump": (NOP5 + "e9" + rel32(F + 5, 5, G), {}),
    "tail_jump_prefix": (NOP5 + "2ee9" + rel32(F + 5, 6, G), {}),
    "indirect": (NOP5 + "ffe1 cc9090", {"rcx": G}),  # jmp rcx
    "indirect_rip_memory": (NOP5 + "ff25" + rel32(F + 5, 6, DATA), {}),  # jmp [DATA], which holds G
    "indirect_memory": (NOP5 + "ff6108 cccc", {"rcx": DATA - 8}),  # jmp [rcx+8]
    "cond_taken": (NOP5 + "4885ff 0f84" + rel32(F + 8, 6, G) + "c3cccccccc", {"rdi": 0}),  # test rdi, rdi; je G; ret
    "cond_not_taken": (NOP5 + "4885ff 0f84" + rel32(F + 8, 6, G) + "c3cccccccc", {"rdi": 5}),
    # cmp rdi, 3; jg G; setl al; ret: behind an untaken jump the flags are still read
    "cond_flags_used_after": (
        NOP5 + "4883ff03 0f8f" + rel32(F + 9, 6, G) + "0f9cc0 c3cccccccc",
        {"rdi": 1},
    ),
}  # fmt: skip


def memory(code: bytes, patched: dict[int, bytes]) -> Emulator:
    data = G.to_bytes(8, "little")
    return Emulator({F: code, G: G_CODE, **patched}, data)


def patch_all(code: bytes, sites: list[Site]) -> tuple[dict[int, bytes], bytes]:
    stubs = b""
    new = bytearray(code)
    for site in sites:
        addr = STUBS + len(stubs)
        stub = compose_stub(site, addr, BODY)
        assert len(stub) == stub_shape(site, len(BODY)).total_size
        stubs += stub
        edit = site_edit(site, addr)
        place = edit.addr - F
        assert new[place : place + len(edit.old)] == edit.old and len(edit.old) == len(edit.new)
        new[place : place + len(edit.old)] = edit.new
    return {STUBS: stubs}, bytes(new)


def counted(outcome: Outcome) -> int:
    return int.from_bytes(outcome.data[COUNTER - DATA : COUNTER - DATA + 8], "little")


def passed(outcome: Outcome, sites: list[Site], code: bytes) -> int:
    """How many bodies the original run would have met: a conditional jump counts only when it was taken."""
    times = 0
    for site in sites:
        place = outcome.visited.index(site.addr) if site.addr in outcome.visited else -1
        if place < 0:
            continue
        after = outcome.visited[place + 1] if place + 1 < len(outcome.visited) else DONE
        if isinstance(site, ExitSite) and site.kind == "cond_tail_jump" and after != site.target:
            continue
        times += 1
    return times


@pytest.mark.parametrize("name", CASES)
def test_detour_counts_and_changes_nothing(name: str) -> None:
    code_text, regs = CASES[name]
    code = bytes.fromhex(code_text)
    sites = all_sites(code)
    original = memory(code, {}).run(F, regs=regs)
    stubs, new = patch_all(code, sites)
    detoured = memory(new, stubs).run(F, regs=regs)
    assert detoured.fault == original.fault == 0
    assert detoured.regs == original.regs
    assert detoured.rip == original.rip == DONE
    assert counted(detoured) == passed(original, sites, code) > 0
    assert original.data.replace(bytes(1), b"") in (
        detoured.data.replace(bytes(1), b""),
        original.data.replace(b"\0", b""),
    )


@given(rdi=st.integers(-5, 5), condition=st.integers(0, 15))
def test_every_condition_is_kept(rdi: int, condition: int) -> None:
    """cmp rdi, 1; jcc G; pushfq; pop rax; ret: where the jump is not taken, the flags are the original ones."""
    code = bytes.fromhex(NOP5 + "4883ff01" + "0f" + f"{0x80 + condition:02x}" + rel32(F + 9, 6, G) + "9c58 c3cccccccc")
    sites = all_sites(code)
    original = memory(code, {}).run(F, regs={"rdi": rdi})
    stubs, new = patch_all(code, sites)
    detoured = memory(new, stubs).run(F, regs={"rdi": rdi})
    assert detoured.regs == original.regs and detoured.rip == DONE
    assert counted(detoured) == 2  # the entry, and one of the two ways out


@pytest.mark.parametrize("name", CASES)
def test_copied_slot_does_what_the_site_did(name: str) -> None:
    """The stop engine's way: whoever stands at the site is sent to the slot instead."""
    code_text, regs = CASES[name]
    code = bytes.fromhex(code_text)
    for site in all_sites(code):
        slot = copied_slot(site, STUBS)
        original = memory(code, {}).run(F, regs=regs)
        # A jump to the slot stands in for the host's change of RIP; the slot must not depend on the site's bytes.
        jump = b"\xe9" + (STUBS - site.addr - 5 & 0xFFFFFFFF).to_bytes(4, "little")
        offset = site.addr - F
        sent = code[:offset] + jump + code[offset + 5 :]
        copied = memory(sent, {STUBS: slot}).run(F, regs=regs)
        assert (copied.regs, copied.rip, copied.flags) == (original.regs, original.rip, original.flags)


@pytest.mark.parametrize(
    ("site", "slot"),
    [
        (EntrySite(F, bytes.fromhex(NOP5), F), NOP5 + "9090" + "e9" + rel32(STUBS + 7, 5, F + 5)),
        (ExitSite(F, bytes.fromhex("c3cccccccc"), F, "ret", 1, None), "c3 9090"),
        (
            ExitSite(F, bytes.fromhex("e900000000"), F, "tail_jump", 5, G),
            "e9" + rel32(STUBS, 5, G) + "9090",
        ),
        (
            ExitSite(F, bytes.fromhex("0f8400000000"), F, "cond_tail_jump", 6, F + 6),
            "0f84" + rel32(STUBS, 6, F + 6) + "9090" + "e9" + rel32(STUBS + 8, 5, F + 6),
        ),
    ],
)
def test_slot_bytes(site: Site, slot: str) -> None:
    assert copied_slot(site, STUBS) == bytes.fromhex(slot)


@pytest.mark.parametrize(
    ("site", "text"),
    [
        (EntrySite(F, bytes.fromhex(NOP5), F), f"nop; jmp {F + 5:#x}"),
        (ExitSite(F, bytes.fromhex("c3cccccccc"), F, "ret", 1, None), "nop; ret"),
        (ExitSite(F, bytes.fromhex("c20800cccc"), F, "ret", 3, None), "nop; ret 8"),
        (ExitSite(F, bytes.fromhex("e900000000"), F, "return_thunk", 5, G), f"nop; jmp {G:#x}"),
        (
            ExitSite(F, bytes.fromhex("0f8f00000000"), F, "cond_tail_jump", 6, G),
            f"jg taken; jmp {F + 6:#x}; taken: nop; jmp {G:#x}",
        ),
        (ExitSite(F, bytes.fromhex("ffe0cc9090"), F, "indirect_tail_jump", 2, None), "nop; jmp rax"),
    ],
)
def test_templates_are_what_the_assembler_says(site: Site, text: str) -> None:
    assert compose_stub(site, STUBS, b"\x90") == assemble(text, STUBS)  # body: nop
    jump = assemble(f"jmp {STUBS:#x}", site.addr)
    edit = site_edit(site, STUBS)
    assert edit == (site.addr, site.old, jump + b"\x90" * (len(site.old) - 5))


@pytest.mark.parametrize("stub_addr", [F - (1 << 31) - 16, F + (1 << 31) + 16, 0x1000_0000_0000])
def test_out_of_range(stub_addr: int) -> None:
    site = EntrySite(F, bytes.fromhex(NOP5), F)
    with pytest.raises(RangeError) as caught:
        site_edit(site, stub_addr)
    assert (caught.value.addr, caught.value.target) == (F, stub_addr)
    with pytest.raises(RangeError):
        compose_stub(site, stub_addr, BODY)


def test_the_furthest_that_reaches() -> None:
    site = EntrySite(F, bytes.fromhex(NOP5), F)
    assert site_edit(site, F + 5 - (1 << 31)).new == b"\xe9\x00\x00\x00\x80"
    with pytest.raises(RangeError):
        site_edit(site, F + 4 - (1 << 31))
