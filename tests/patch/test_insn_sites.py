"""Instruction sites on bytes written by hand: what is one, in which form, and why the others are none."""

from __future__ import annotations

import pytest

from probekit.patch.insn_sites import instruction_sites
from probekit.patch.ranges import Ranges
from probekit.patch.refused_text import RefusedText
from probekit.patch.sites import InsnSite, TextFacts

F = 0xFFFFFFFF81000000
G = 0xFFFFFFFF81008000
NOP5 = "0f1f440000"
TRAPPING = TextFacts(trapping=True, jump_tables=False)


def rel32(addr: int, size: int, target: int) -> str:
    return (target - addr - size & 0xFFFFFFFF).to_bytes(4, "little").hex()


def test_every_instruction_and_its_form() -> None:
    # nop5; push r12; mov rax, gs:[0x1fb80]; call G; test eax, eax; je +1; pop r12; ret; int3 x 3
    code = NOP5 + "4154" + "65488b042580fb0100" + "e8" + rel32(F + 16, 5, G) + "85c0 7401 90 415c c3 cccccc"
    found = instruction_sites(F, bytes.fromhex(code), TRAPPING)
    assert found.refused == {} and found.end == 29
    assert {offset: (site.trap, site.old.hex()) for offset, site in found.sites.items()} == {
        0: (False, NOP5),
        5: (True, "4154"),
        7: (False, "65488b042580fb0100"),
        16: (False, "e8" + rel32(F + 16, 5, G)),
        21: (True, "85c0"),
        23: (True, "7401"),
        25: (True, "90"),
        26: (True, "415c"),
        28: (True, "c3"),
    }
    assert found.sites[5] == InsnSite(F + 5, bytes.fromhex("4154"), F, True)


def test_without_a_way_to_take_int3_only_what_has_room() -> None:
    code = bytes.fromhex(NOP5 + "4154 c3cccccc")
    found = instruction_sites(F, code, TextFacts())
    assert list(found.sites) == [0]
    assert found.refused[5] == "a 2-byte instruction has no room for a jump"
    found = instruction_sites(F, code, TextFacts(no_traps="this kernel has none"))
    assert found.refused[5] == "a 2-byte instruction has no room for a jump, and this kernel has none"


def test_a_branch_into_a_long_instruction_makes_it_a_trap() -> None:
    # jmp +1, into mov eax, 0x90909090 (as no compiler does); ret
    found = instruction_sites(F, bytes.fromhex("eb01 b890909090 c3cccccc"), TRAPPING)
    assert found.sites[2].trap
    hidden = TextFacts(trapping=True, hidden_jumps=((F, F + 3),))
    assert instruction_sites(F, bytes.fromhex("6690 b890909090 c3"), hidden).sites[2].trap


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("fb", "sti opens an interrupt window of one instruction"),
        ("f4", "hlt pairs with the instruction before it"),
        ("0f01c9", "mwait pairs with the instruction before it"),
        ("0f0b", "ud2 tells its handler its own address"),
        ("8ed0", "mov ss opens an interrupt window of one instruction"),
        ("8ee8", "mov gs changes the GS base under the probe"),
        ("0fb52a", "lgs changes the GS base under the probe"),
        ("48cf", "iretq changes privilege or segment"),
        ("480f07", "sysretq changes privilege or segment"),
        ("c7f800000000", "xbegin names an abort address relative to itself"),
        ("0f01d5", "xend ends a transaction that the probe would have ended"),
        ("0f01c1", "vmcall changes privilege or segment"),
        ("ffd4", "it calls through the stack pointer, which the push has moved"),
        ("488d05f9ffffff", "it refers to the moved bytes as data"),
    ],
)
def test_an_instruction_that_stays_where_it_is(code: str, reason: str) -> None:
    found = instruction_sites(F, bytes.fromhex(code + "4154 c3cccccc"), TRAPPING)
    size = len(bytes.fromhex(code))
    assert found.refused == {0: reason}
    assert list(found.sites) == [size, size + 2]


def test_a_function_that_switches_the_gs_base() -> None:
    found = instruction_sites(F, bytes.fromhex("4154 0f01f8 90 0f01f8 c3cccccc"), TRAPPING)
    assert found.sites == {} and all("swapgs" in reason for reason in found.refused.values())
    # The same bytes as an operand are no swapgs: mov eax, 0x90f8010f
    assert instruction_sites(F, bytes.fromhex("b80f01f890 c3"), TRAPPING).refused == {}


def test_where_the_kernel_forbids_it() -> None:
    facts = TextFacts(trapping=True, refused=RefusedText.of([(F, F + 1, "NOKPROBE"), (F + 2, F + 3, "noinstr")]))
    found = instruction_sites(F, bytes.fromhex("4154 4155 c3"), facts)
    assert found.refused == {0: "NOKPROBE", 2: "noinstr"} and list(found.sites) == [4]


def test_what_the_guest_rewrites() -> None:
    facts = TextFacts(trapping=True, reserved=Ranges.of([(F + 5, F + 7)]))
    found = instruction_sites(F, bytes.fromhex(NOP5 + "6690 c3"), facts)
    assert list(found.refused) == [5] and "rewrites" in found.refused[5]


def test_an_exception_table_entry() -> None:
    code = bytes.fromhex("488b07 c3")  # mov rax, [rdi]; ret
    assert "exception table" in instruction_sites(F, code, TextFacts(trapping=True, faulting=frozenset({F}))).refused[0]
    assert 0 in instruction_sites(F, code, TextFacts(trapping=True, faulting=frozenset({F}), fixups=True)).sites


def test_endbr64_where_indirect_calls_must_land_on_it() -> None:
    code = bytes.fromhex("f30f1efa" + NOP5 + "c3")
    assert 0 in instruction_sites(F, code, TRAPPING).sites
    found = instruction_sites(F, code, TextFacts(trapping=True, branch_tracking=True))
    assert list(found.refused) == [0]


@pytest.mark.parametrize(
    "code",
    [
        "4154 cc85c0 90 c3",  # push r12; int3 (of someone else); ...
        "e800000000 cc85c0 c3",  # behind a call it is reached as well
        "7403 90 c3 90 c3 cc90 c3" if False else "7402 90 c3 cc 90 c3",  # je lands on it
        "4154 06 90 c3",  # no instruction
        "4154 e9 00000040 90 c3",  # a jump to where no code of the kernel is
    ],
)
def test_behind_somebody_elses_probe_nothing_is_sure(code: str) -> None:
    facts = TextFacts(trapping=True, jump_tables=False, text=Ranges.of([(F - 0x1000, F + 0x100000)]))
    found = instruction_sites(F, bytes.fromhex(code), facts)
    assert set(found.sites) <= {0, 2, 3}
    last = max((*found.sites, *found.refused))
    assert last not in found.sites or last < 4


def test_int3_that_nobody_reaches_is_padding() -> None:
    # ret; int3 (the compiler's stop); nop; jmp rax; int3; nop; ret
    found = instruction_sites(F, bytes.fromhex("c3 cc 90 ffe0 cc 90 c3 cccccccc"), TRAPPING)
    assert list(found.sites) == [0, 2, 3, 6, 7] and found.refused == {}


def test_a_pad_that_ftrace_uses() -> None:
    code = bytes.fromhex("e8" + rel32(F, 5, G) + "4154 c3")
    facts = TextFacts(trapping=True, pads=frozenset({F}), text=Ranges.of([(F, F + 0x100)]))
    found = instruction_sites(F, code, facts)
    assert "already changed" in found.refused[0] and list(found.sites) == [5, 7]


@pytest.mark.parametrize(
    ("offset", "words"),
    [
        (1, "in the middle of an instruction; the nearest begin at 0 and 5"),
        (6, "in the middle of an instruction; the nearest begin at 5 and 7"),
        (8, "outside the function, whose last instruction ends at 8"),
        (4096, "outside the function"),
    ],
)
def test_an_offset_that_is_no_instruction(offset: int, words: str) -> None:
    found = instruction_sites(F, bytes.fromhex(NOP5 + "4154 c3 cccccccc"), TRAPPING)
    assert words in found.why_not(offset)


def test_no_bytes_at_all() -> None:
    found = instruction_sites(F, b"", TRAPPING)
    assert (found.sites, found.refused, found.end) == ({}, {}, 0)
    assert "outside" in found.why_not(0)
