"""Functions that the kernel calls by itself: a tracepoint's arguments, and everything that the caller may rely on."""

from __future__ import annotations

import struct

import pytest
import unicorn
from unicorn import x86_const as x86

from probekit.guest.tracepoints import TracepointProbe, call_table, caller_code
from probekit.isa.assemble import assemble
from tests.codegen.built_program import RET, Function
from tests.codegen.emulated_kernel import STACK_TOP
from tests.codegen.machine import Machine
from tests.support.emulator import TEXT

HOOK = (Function("", "tracepoint"),)
MARKER = (Function("", "marker"),)
DATA = 0xDA7A
ALL = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")


def _fire(machine: Machine, values: tuple[int, ...]) -> None:
    """Call it with these values behind what stands before them: a tracepoint's data; a marker and its format."""
    values = (DATA,) * (2 if machine.built.markers else 1) + values
    regs = dict(zip(ALL, values, strict=False))
    for place, value in enumerate(values[len(ALL) :]):
        machine.write(STACK_TOP + 8 + 8 * place, struct.pack("<Q", value))
    before = {"rbx": 1, "rbp": 2, "r12": 3, "r13": 4, "r14": 5, "r15": 6, "rax": 7, "r10": 8, "r11": 9}
    fired = machine.fire(**regs, **before)
    assert fired.fault == 0 and fired.bad == ()
    assert {name: fired.regs[name] for name in before} == before
    assert fired.regs["rsp"] == STACK_TOP + 8
    assert {name: fired.regs[name] for name in regs} == regs


@pytest.mark.parametrize("functions", [HOOK, MARKER], ids=["tracepoint", "marker"])
@pytest.mark.parametrize("index", range(10))
def test_each_argument(index: int, functions: tuple[Function, ...]) -> None:
    machine = Machine(f"fbt::: {{ @ = sum(arg{index}); trace(arg{index}); }}", functions=functions)
    values = tuple(1000 + n for n in range(10))
    _fire(machine, values)
    assert machine.table(0) == {(): (values[index],)}
    (record,) = machine.drain()
    assert record.payload[:8] == struct.pack("<q", values[index])


def test_a_hook_counts_inline() -> None:
    machine = Machine("fbt::: { @ = count(); }", functions=(*HOOK, Function("", "tracepoint")))
    assert machine.inline == ((0,), (0,))
    for _ in range(3):
        _fire(machine, (1, 2, 3))
    machine.fire(1)
    assert machine.table(0) == {(): (4,)}


def test_hooks_beside_sites() -> None:
    machine = Machine("fbt::: { @[probename] = count(); }", functions=(*HOOK, Function(), Function(RET, "return")))
    for number in (0, 1, 1, 2, 2, 2):
        assert machine.fire(number).fault == 0
    assert {key[0]: value for key, value in machine.table(0).items()} == {
        "tracepoint": (1,), "entry": (2,), "return": (3,),
    }  # fmt: skip
    assert len(machine.code) <= machine.bound
    assert machine.built.table % 8 == 0 and machine.code.endswith(call_table(machine.built.tracepoint_probes))


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
