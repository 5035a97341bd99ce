"""Ways through comparisons, against unicorn: what the processor does with the same registers."""

from __future__ import annotations

import pytest
import unicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from unicorn import x86_const as x86

from probekit.isa.assemble import assemble
from probekit.isa.follow import Follower

AT, THERE, ELSEWHERE = 0x100000, 0x200000, 0x200100
_VALUES = st.sampled_from((0, 1, 2, 5, 31, 32, 63, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1))
_CONDITIONS = "b ae e ne be a s ns l ge le g".split()
_OPERATIONS = (
    *("cmp {0}, {1}", "test {0}, {1}", "sub {0}, {1}", "add {0}, {1}", "and {0}, {1}", "or {0}, {1}", "xor {0}, {1}"),
    *("cmp {0}, 5", "sub {0}, 0x20", "add {0}, -1", "cmp {0}, -1", "test {0}, 2"),
)
_MOVES = (
    *("mov eax, esi", "mov rax, rsi", "movsxd rax, esi", "lea eax, [rsi - 5]", "lea rax, [rsi + rcx * 4 + 1]"),
    *("xor eax, eax", "mov eax, 1; mov ecx, esi; shl rax, cl", "mov rax, rsi; shr eax, 3", "mov rax, -38", "nop"),
)


def executed(code: bytes, values: dict[str, int]) -> int:
    """Where the processor leaves the code."""
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    for addr in (AT, THERE):
        uc.mem_map(addr, 0x1000)
    uc.mem_write(AT, code)
    uc.mem_write(THERE, b"\xf4" * 0x200)
    for name, value in values.items():
        uc.reg_write(getattr(x86, f"UC_X86_REG_{name.upper()}"), value)
    uc.emu_start(AT, AT + len(code), count=100)
    return int(uc.reg_read(x86.UC_X86_REG_RIP)) & ~0xFF


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(_MOVES), max_size=2),
    st.sampled_from(_OPERATIONS),
    st.sampled_from((("eax", "esi"), ("rax", "rsi"), ("esi", "ecx"), ("rsi", "rax"))),
    st.sampled_from(_CONDITIONS),
    st.tuples(_VALUES, _VALUES, _VALUES),
)
def test_it_goes_where_the_processor_goes(
    moves: list[str], operation: str, registers: tuple[str, str], condition: str, values: tuple[int, int, int]
) -> None:
    text = "; ".join(
        [*moves, operation.format(*registers), f"j{condition} yes", f"jmp {THERE:#x}", f"yes: jmp {ELSEWHERE:#x}"]
    )
    code, given_ = assemble(text, AT), dict(zip(("rax", "rcx", "rsi"), values, strict=True))
    assert Follower(code, AT).leaves_to(given_) == executed(code, given_)


@pytest.mark.parametrize("value", [0, 1, 63])
def test_a_bit_is_tested(value: int) -> None:
    code = assemble(f"mov rax, 0x8000000000000001; bt rax, rsi; jb yes; jmp {THERE:#x}; yes: jmp {ELSEWHERE:#x}", AT)
    assert Follower(code, AT).leaves_to({"rsi": value}) == (THERE if value == 1 else ELSEWHERE)


@pytest.mark.parametrize(
    "text",
    [
        "cmp eax, 5; je 0x200000; jmp 0x200000",
        "cmp esi, dword ptr [rdi]; je 0x200000; jmp 0x200000",
        "mov esi, dword ptr [rdi]; test esi, esi; je 0x200000; jmp 0x200000",
        "mov sil, 5; cmp esi, 5; je 0x200000; jmp 0x200000",
        "jmp rax",
        "again: jmp again",
        "cpuid; jmp 0x200000",
        "shl esi, 1; je 0x200000; jmp 0x200000",
        "mov esi, 3",
    ],
)
def test_what_is_not_known_is_not_guessed(text: str) -> None:
    assert Follower(assemble(text, AT), AT).leaves_to({"rsi": 5}) is None


def test_calls_and_returns() -> None:
    assert Follower(assemble("push rbx; sub rsp, 8; nop; call 0x200000; ret", AT), AT).leaves_to({}) == THERE
    assert Follower(assemble("nop; ret", AT), AT).leaves_to({}) == 0
    assert Follower(bytes.fromhex("e8fbff0f00c3"), AT).leaves_to({}) == 0, "ftrace's call at the very start"
    assert Follower(b"\x06", AT).leaves_to({}) is None
