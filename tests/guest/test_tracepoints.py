"""The routine that registers many probes in one guest call."""

from __future__ import annotations

import struct

import unicorn
from unicorn import x86_const as x86

from probekit.guest.tracepoints import TracepointProbe, call_table, caller_code
from probekit.isa.assemble import assemble
from tests.support.emulator import TEXT

CALLER, TABLE, CALLEE, LOG = TEXT, TEXT + 0x1000, TEXT + 0x2000, TEXT + 0x4000
STACK = TEXT + 0x8000


# Remembers its arguments, refuses a badly aligned stack, spoils what it may, and answers what the entry's data says.
_CALLEE = f"""
    lea rax, [rsp + 8]
    test rax, 0xf
    jz aligned
    ud2
aligned:
    mov rax, {LOG:#x}
    mov rcx, qword ptr [rax]
    mov qword ptr [rax + rcx + 8], rdi
    add rcx, 8
    mov qword ptr [rax], rcx
    mov eax, edx
    mov rcx, 0x1111; mov rdx, rcx; mov rsi, rcx; mov rdi, rcx; mov r8, rcx; mov r9, rcx; mov r10, rcx; mov r11, rcx
    ret
"""


def _call(hooks: list[TracepointProbe]) -> tuple[int, list[int]]:
    """What the routine returns for a table, and the tracepoints that were asked for."""
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
    uc.mem_map(TEXT, 0x10000)
    table = call_table(hooks)
    stop = TEXT + 0x3000
    kept = {x86.UC_X86_REG_RBX: 1, x86.UC_X86_REG_RBP: 2, x86.UC_X86_REG_R12: 3, x86.UC_X86_REG_R13: 4}
    kept |= {x86.UC_X86_REG_R14: 5, x86.UC_X86_REG_R15: 6}
    for addr, data in {CALLER: caller_code(), TABLE: table, CALLEE: assemble(_CALLEE, CALLEE), stop: b"\xf4"}.items():
        uc.mem_write(addr, data)
    uc.mem_write(STACK - 8, stop.to_bytes(8, "little"))
    args = {x86.UC_X86_REG_RDI: TABLE, x86.UC_X86_REG_RSI: TABLE + len(table), x86.UC_X86_REG_RDX: CALLEE}
    for register, value in {**kept, **args, x86.UC_X86_REG_RSP: STACK - 8}.items():
        uc.reg_write(register, value)
    uc.emu_start(CALLER, stop, count=100_000)
    assert {register: uc.reg_read(register) for register in kept} == kept
    assert uc.reg_read(x86.UC_X86_REG_RSP) == STACK
    count = int.from_bytes(uc.mem_read(LOG, 8), "little") // 8
    asked = struct.unpack(f"<{count}Q", bytes(uc.mem_read(LOG + 8, 8 * count)))
    return uc.reg_read(x86.UC_X86_REG_RAX), list(asked)


def test_the_routine_walks_its_table() -> None:
    assert _call([]) == (0, [])
    assert _call([TracepointProbe(5, 1), TracepointProbe(6, 1), TracepointProbe(7, 1)]) == (72, [5, 6, 7])
    assert _call([TracepointProbe(5, 1), TracepointProbe(6, 0), TracepointProbe(7, 1)]) == (72, [5, 7])


def test_the_routine_stops_at_an_error() -> None:
    enomem = -12 & 0xFFFFFFFF
    assert _call([TracepointProbe(5, 1), TracepointProbe(6, 1, enomem), TracepointProbe(7, 1)]) == (
        12 << 48 | 24,
        [5, 6],
    )
