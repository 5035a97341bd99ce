"""One byte-exact case for each form of instruction that can be moved, and one for each that cannot."""

from __future__ import annotations

import pytest

from probekit.isa.relocate import RelocateError, relocate, relocate_jump

A = 0xFFFFFFFF81000000
B = 0xFFFFFFFFC0000000


def moved(code: str, addr: int = A, new_addr: int = B) -> str:
    return relocate(bytes.fromhex(code), addr, new_addr, jump_back=False).code.hex()


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        ("plain", "554889e5", "554889e5"),  # push rbp; mov rbp, rsp
        ("nop5", "0f1f440000", "0f1f440000"),
        ("rip_relative_load", "488b0510000000", "488b05100000c1"),  # mov rax, [rip+..]
        ("rip_relative_store_imm", "c7051000000005000000", "c705100000c105000000"),  # mov dword [rip+..], 5
        ("rip_relative_lock_xadd", "f0480fc10510000000", "f0480fc105100000c1"),
        ("rip_relative_gs", "65488b0510000000", "65488b05100000c1"),  # mov rax, gs:[rip+..]
        ("jmp_short_outside", "eb10", "e90d0000c1"),
        ("jmp_near_outside", "e900010000", "e9000100c1"),
        ("jmp_cs_prefix", "2ee900010000", "2ee9000100c1"),
        ("jcc_short_outside", "7410", "0f840c0000c1"),
        ("jcc_near_outside", "0f8400010000", "0f84000100c1"),
        ("jcc_short_inside", "740190 90", "74019090"),  # je +1; nop; nop
        ("jrcxz_outside", "e310", "e302eb05e9090000c1"),  # jrcxz L; jmp N; L: jmp target; N:
        ("jecxz_outside", "67e310", "67e302eb05e9090000c1"),
        ("loop_outside", "e210", "e202eb05e9090000c1"),
        ("loop_to_itself", "e2fe", "e202eb05e9f7ffffc0"),  # what stands there now is the probe
        ("jmp_to_itself", "ebfe", "e9fbffffc0"),
        ("jcc_to_the_first", "90 75fd", "90 0f85f9ffffc0"),
        ("loop_to_the_second", "90 e2fe 90", "90 e2fe 90"),
        ("call_direct", "e800010000", "6805000081e9fb0000c1"),  # push original return; jmp f
        ("call_next", "e800000000", "6805000081e9fbffffc0"),
        ("call_register", "ffd0", "6802000081ffe0"),
        ("call_memory", "ff5010", "6803000081ff6010"),
        ("call_rip_memory", "ff1510000000", "6806000081ff250b0000c1"),
        ("call_stack_memory", "ff542408", "6804000081ffa42410000000"),  # [rsp+8] is [rsp+16] behind the push
        ("jmp_register", "ffe0", "ffe0"),
        ("jmp_memory_rip", "ff2510000000", "ff25100000c1"),
        ("ret", "c3", "c3"),
        ("ret_imm", "c20800", "c20800"),
        ("rep_movsb", "f3a4", "f3a4"),
        ("pushf_popf", "9c9d", "9c9d"),
        ("cli", "fa", "fa"),
        ("rdtsc", "0f31", "0f31"),
        ("endbr64", "f30f1efa", "f30f1efa"),
        ("mov_ds", "8ed8", "8ed8"),  # mov ds, eax
        ("gs_wraps_around", "65488b0500f00a7f", "65488b0500f00a40"),  # mov rax, gs:[rip+..], from near 2**64
        ("lock", "f0480fb10e", "f0480fb10e"),  # lock cmpxchg [rsi], rcx
        ("repne_scasb", "f2ae", "f2ae"),
        ("rep_stosq_address_size", "67f348ab", "67f348ab"),
        ("rep_rip_relative_prefix", "f3480fb80510000000", "f3480fb805100000c1"),  # popcnt rax, [rip+..]
        ("operand_size", "66053412", "66053412"),  # add ax, 0x1234
        ("leave", "c9", "c9"),
        ("switch_stack", "4889fc", "4889fc"),  # mov rsp, rdi
        ("pop_rsp", "5c", "5c"),
        ("xchg_rsp", "4894", "4894"),
        ("push_rip_memory", "ff3510000000", "ff35100000c1"),
        ("lgdt", "0f0110", "0f0110"),
        ("mov_cr3", "0f22d8", "0f22d8"),
        ("wrmsr", "0f30", "0f30"),
        ("vex", "c5f877", "c5f877"),  # vzeroupper
        ("vex_rip_relative", "c5fc100510000000", "c5fc1005100000c1"),  # vmovups ymm0, [rip+..]
        ("evex_rip_relative", "62f17c48100510000000", "62f17c481005100000c1"),  # vmovups zmm0, [rip+..]
    ],
)
def test_form(name: str, code: str, expected: str) -> None:
    assert moved(code) == expected.replace(" ", "")


def test_call_with_a_return_address_beyond_sign_extension() -> None:
    # push 0x56789005; mov dword ptr [rsp+4], 0x1234; jmp f
    assert moved("e800000000", 0x1234_5678_9000, 0x1234_5670_0000) == "6805907856c744240434120000e9f38f0800"


@pytest.mark.parametrize(
    ("code", "falls_through"),
    [("90", True), ("7410", True), ("c3", False), ("eb10", False), ("ffe0", False), ("e800010000", False)],
)
def test_jump_back_only_where_control_gets_there(code: str, falls_through: bool) -> None:
    size = len(bytes.fromhex(code))
    result = relocate(bytes.fromhex(code), A, B)
    assert result.falls_through is falls_through
    back = (A + size - (B + len(result.code))) & 0xFFFFFFFF
    assert result.code.endswith(b"\xe9" + back.to_bytes(4, "little")) is falls_through


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("48cf", "privilege"),  # iretq
        ("480f07", "privilege"),  # sysretq
        ("0f05", "enters the kernel"),  # syscall
        ("0f01f8", "GS base"),  # swapgs
        ("8ed0", "interrupt window"),  # mov ss, eax
        ("fb", "interrupt window"),  # sti
        ("0fb220", "interrupt window"),  # lss esp, [rax]
        ("cc", "its own address"),  # int3
        ("cd80", "its own address"),  # int 0x80
        ("0f0b", "its own address"),  # ud2
        ("f4", "pairs"),  # hlt
        ("0f01c9", "pairs"),  # mwait
        ("0f01d5", "transaction"),  # xend
        ("c6f800", "transaction"),  # xabort
        ("8ee8", "GS base"),  # mov gs, eax
        ("0fa9", "GS base"),  # pop gs
        ("0fb528", "GS base"),  # lgs ebp, [rax]
        ("f3480faeda", "GS base"),  # wrgsbase rdx
        ("f1", "its own address"),  # int1
        ("0f01c1", "privilege"),  # vmcall
        ("0f01c2", "privilege"),  # vmlaunch
        ("0f34", "enters the kernel"),  # sysenter
        ("ff18", "privilege"),  # call far
        ("c7f800000000", "abort address"),  # xbegin
        ("06", "not an instruction"),
        ("e900", "cut short"),
        ("488d05f9ffffff", "as data"),  # lea rax, [rip-7]: its own first byte
        ("eb01 8b c0", "middle"),  # jmp +1, into mov eax, eax
        ("ffd4", "stack pointer"),  # call rsp
        ("e800000000 90", "return into"),  # call; nop
        ("cb", "privilege"),  # retf
        *((code, "operand size prefix") for code in ("667500", "66eb00", "66e800000000", "66c3", "66ffe0", "6648ffd0")),
        ("2e66ff20", "operand size prefix"),  # jmp [rax]
        ("66e2fe", "operand size prefix"),  # loop
    ],
)
def test_refused(code: str, reason: str) -> None:
    with pytest.raises(RelocateError) as caught:
        moved(code)
    assert reason in caught.value.reason and caught.value.addr >= A


@pytest.mark.parametrize("code", ["488b0510000000", "e900010000", "7410", "e310", "e800010000"])
def test_out_of_reach(code: str) -> None:
    """iced would turn such a branch into a jump through memory, without a word."""
    for far in (A - (3 << 30), A + (3 << 30), 0x1000_0000_0000):
        with pytest.raises(RelocateError, match="out of reach"):
            moved(code, A, far & (1 << 64) - 1)


def test_jump_back_out_of_reach() -> None:
    with pytest.raises(RelocateError, match="out of reach"):
        relocate(b"\x90", A, A - (3 << 30))  # nop


def test_exception_table_entries_stay_where_they_are() -> None:
    with pytest.raises(RelocateError, match="handled by its address"):
        relocate(bytes.fromhex("90488b00"), A, B, faulting={A + 1})


def test_relocate_jump_has_nothing_behind_it() -> None:
    assert relocate_jump(bytes.fromhex("7410"), A, B).hex() == "0f840c0000c1"
