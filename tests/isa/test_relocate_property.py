"""Moved instructions do what the originals did: registers, flags, memory, stack and faults, run by unicorn."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from support.emulator import DATA, DATA_SIZE, DONE, STUBS, TEXT, Emulator

from probekit.isa.decode import DecodeError, decode_run
from probekit.isa.relocate import RelocateError, relocate

START = TEXT + 0x1000

# Pieces that are likely in a kernel, with room for random operands: opcode bytes, number of operand bytes.
_PIECES = st.sampled_from(
    [
        ("4889", 1),
        ("488b", 1),
        ("4801", 1),
        ("4831", 1),
        ("4839", 1),
        ("4885", 1),
        ("488d", 1),
        ("4883", 2),
        ("89", 1),
        ("8b", 1),
        ("50", 0),
        ("53", 0),
        ("58", 0),
        ("5b", 0),
        ("909c", 0),  # nop, pushf
        ("0fb6", 1),
        ("0f44", 1),
        ("0f94", 1),
        ("48c7c0", 4),
        ("b8", 4),
        ("48d1", 1),
        ("f7", 1),
        ("488b05", 4),
        ("4c8b0d", 4),
        ("f0480fc105", 4),
        ("ff05", 4),
        ("74", 1),
        ("75", 1),
        ("eb", 1),
        ("e3", 1),
        ("e2", 1),
        ("0f84", 4),
        ("e9", 4),
        ("e8", 4),
        ("c3", 0),
        ("f3a4", 0),
        ("f348ab", 0),
        ("ffd0", 0),
        ("ffe0", 0),
        ("ff5424", 1),
        ("ff10", 0),
    ]
)


@st.composite
def _code(draw: st.DrawFn) -> bytes:
    code = b""
    for _ in range(draw(st.integers(1, 4))):
        head, size = draw(_PIECES)
        piece = bytes.fromhex(head)
        if head in ("488b05", "4c8b0d", "f0480fc105", "ff05"):
            # A RIP-relative operand that names our data.
            end = START + len(code) + len(piece) + 4
            place = DATA + draw(st.integers(0, DATA_SIZE - 8))
            code += piece + (place - end & 0xFFFFFFFF).to_bytes(4, "little")
        elif head in ("0f84", "e9", "e8"):
            end = START + len(code) + len(piece) + 4
            code += piece + (TEXT + draw(st.integers(0, 0x4000)) - end & 0xFFFFFFFF).to_bytes(4, "little")
        else:
            code += piece + draw(st.binary(min_size=size, max_size=size))
    return code


def _compare(code: bytes, rax: int, rcx: int, data: bytes, flags: int) -> bool:
    """Run both; True when there was something to compare."""
    try:
        insns = list(decode_run(code, START))
        result = relocate(code, START, STUBS)
    except (DecodeError, RelocateError):
        return False
    if any(after.mnemonic.startswith("pushf") and insn.mnemonic != "nop" for insn, after in pairwise(insns)):
        return False  # unicorn has stale flags for a pushf right behind some operations
    end = START + len(code)
    # Anything outside the run is a place to stop: one ret everywhere else would hide where a branch went.
    outside = tuple({insn.target for insn in insns if insn.target is not None and not START <= insn.target < end})
    stops = (end, DONE, *outside)
    regs = {"rax": rax, "rcx": rcx, "rbx": DATA + 64, "rsi": DATA + 0x800, "rdi": DATA + 0x900, "rbp": DATA + 0x1000}
    setup = {"regs": regs, "flags": flags | 2, "stops": stops, "limit": 60}
    original = Emulator({START: code}, data).run(START, **setup)
    copy = Emulator({START: code, STUBS: result.code}, data).run(STUBS, **setup)
    if original.fault and copy.fault:
        # The fault is in the same place in each; where that is differs, and so may a half-done push.
        return original.regs == copy.regs and original.data == copy.data
    if original.rip not in stops and not original.fault:
        return False  # an endless loop, or a wild jump
    assert original.effect == copy.effect, (code.hex(" "), result.code.hex(" "))
    return True


@settings(max_examples=300)
@given(
    code=_code(),
    rax=st.sampled_from([0, 1, DATA, DATA + 0x700, 0x8000_0000_0000_0000]),
    rcx=st.sampled_from([0, 1, 2, 5]),
    data=st.binary(min_size=64, max_size=64),
    flags=st.sampled_from([0, 1, 0x40, 0x80, 0x8C5]),
)
def test_same_effect(code: bytes, rax: int, rcx: int, data: bytes, flags: int) -> None:
    _compare(code, rax, rcx, data, flags)


def test_the_property_compares_something() -> None:
    assert _compare(bytes.fromhex("4801c8 48ffc1"), 5, 7, b"", 0)  # add rax, rcx; inc rcx
    assert _compare(bytes.fromhex("4885c0 7410"), 0, 7, b"", 0)  # test rax, rax; je outside, taken
    assert _compare(bytes.fromhex("e2fe"), 0, 5, b"", 0)  # loop to itself
    assert _compare(bytes.fromhex("e8fb0f0000"), 0, 5, b"", 0)  # call: the original return address is on the stack
