"""Facts about single instructions, the function scan, and iced against capstone."""

from __future__ import annotations

import capstone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.isa.decode import ENDBR64, NOP5, DecodeError, FlowExit, decode_one, decode_run, scan_flow

A = 0xFFFFFFFF81000000


@pytest.mark.parametrize(
    ("code", "flow", "target"),
    [
        ("4889e5", "next", None),  # mov rbp, rsp
        ("e900010000", "jump", A + 0x105),  # jmp rel32
        ("eb10", "jump", A + 0x12),  # jmp rel8
        ("2ee900010000", "jump", A + 0x106),  # cs jmp rel32, as gcc writes before a retpoline
        ("7410", "cond", A + 0x12),  # je rel8
        ("0f8400010000", "cond", A + 0x106),  # je rel32
        ("e2fe", "cond", A),  # loop
        ("e3fe", "cond", A),  # jrcxz
        ("e800010000", "call", A + 0x105),  # call rel32
        ("c3", "ret", None),  # ret
        ("c20800", "ret", None),  # ret 8
        ("f3c3", "ret", None),  # rep ret
        ("ffe0", "indirect_jump", None),  # jmp rax
        ("ff24c500100081", "indirect_jump", None),  # jmp [table + rax*8]
        ("ffd0", "indirect_call", None),  # call rax
        ("cc", "trap", None),  # int3
        ("0f0b", "trap", None),  # ud2
        ("48cf", "system", None),  # iretq
        ("0f05", "system", None),  # syscall
        ("480f07", "system", None),  # sysretq
        ("cb", "system", None),  # retf
        ("0f01c1", "system", None),  # vmcall
    ],
)
def test_flow_and_target(code: str, flow: str, target: int | None) -> None:
    insn = decode_one(bytes.fromhex(code), A)
    assert (insn.flow, insn.target, insn.size) == (flow, target, len(code) // 2)


def test_pad_endbr_and_rip_relative() -> None:
    assert decode_one(NOP5, A).is_nop5
    assert decode_one(ENDBR64 + NOP5, A).is_endbr
    load = decode_one(bytes.fromhex("488b0510000000"), A)  # mov rax, [rip+0x10]
    assert load.rip_target == A + 0x17 and load.end == A + 7


@pytest.mark.parametrize("code", ["", "06", "e90001", "48"])
def test_no_instruction(code: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_one(bytes.fromhex(code), A)
    assert caught.value.addr == A


def test_run_stops_at_the_first_bad_byte() -> None:
    with pytest.raises(DecodeError) as caught:
        list(decode_run(bytes.fromhex("90 90 06"), A))
    assert caught.value.addr == A + 2


def test_scan_keeps_what_leaves() -> None:
    # 00 je +2; 02 nop; 03 nop; 04 jmp 0xfff; 09 ret; int3 x 6
    code = bytes.fromhex("7402 90 90 e9f60f0000 c3") + b"\xcc" * 6
    scan = scan_flow(code, A)
    assert scan.exits == [FlowExit("jump", A + 4, 5, A + 0xFFF), FlowExit("ret", A + 9, 1, 0)]
    assert scan.inner_targets == [A + 4]
    assert (scan.last, scan.end, scan.strays) == ("ret", A + 10, [])


def test_scan_sees_a_last_instruction_that_ends_in_cc() -> None:
    code = bytes.fromhex("b8000000cc")  # mov eax, 0xcc000000
    scan = scan_flow(code + b"\xcc" * 3, A)
    assert (scan.last, scan.end) == ("next", A + 5)


def test_scan_reports_a_breakpoint_in_live_code() -> None:
    code = bytes.fromhex("4889e5 cc 90 c3")  # mov rbp, rsp; int3; nop; ret
    assert scan_flow(code, A).strays == [A + 3]


def test_scan_accepts_int3_after_what_never_goes_on() -> None:
    code = bytes.fromhex("c3 cc e8fbffffff cc cc")  # ret; int3; call; int3
    assert scan_flow(code, A).strays == []


def test_trailing_nops_are_padding() -> None:
    code = bytes.fromhex("c3 660f1f840000000000")  # ret; nopw
    scan = scan_flow(code, A)
    assert (scan.last, scan.end) == ("ret", A + 1)


_CAPSTONE = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)

# Bytes that the two read differently; each was looked at and iced is right (or the bytes are undefined).
_PREFIXES = {0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3}


@given(st.binary(min_size=1, max_size=12))
def test_capstone_agrees_on_plain_instructions(code: bytes) -> None:
    """Where both decode an instruction without odd prefixes, they agree on its length and its target."""
    if code[0] in _PREFIXES or code[0] & 0xF0 == 0x40 or code[0] in (0x0F, 0x62, 0x8F, 0xC4, 0xC5):
        return
    other = next(_CAPSTONE.disasm_lite(code, A, 1), None)
    try:
        insn = decode_one(code, A)
    except DecodeError:
        return
    if other is None:
        return
    _, size, mnemonic, operands = other
    assert size == insn.size
    if insn.target is not None:
        assert int(operands, 16) == insn.target, mnemonic
