"""Code at kernel addresses, run by unicorn: what did it do to registers, flags and memory?

Two traps are handled here: kernel addresses need ``UC_TLB_VIRTUAL``, and code
that was rewritten is executed from unicorn's cache unless that is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import unicorn
from unicorn import x86_const as x86

TEXT = 0xFFFFFFFF81000000
TEXT_SIZE = 0x10000
STUBS = 0xFFFFFFFFC0000000
DATA = 0xFFFFFFFF82000000
DATA_SIZE = 0x10000
STACK = 0xFFFFC90000000000
STACK_SIZE = 0x4000
STACK_TOP = STACK + STACK_SIZE // 2
DONE = TEXT + TEXT_SIZE - 0x1000  # where the outermost return goes

_NAMES = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15".split()
_IDS = {name: getattr(x86, f"UC_X86_REG_{name.upper()}") for name in [*_NAMES, "rip"]}
_FLAGS = x86.UC_X86_REG_EFLAGS
ARITHMETIC_FLAGS = 0x8D5  # CF PF AF ZF SF OF


@dataclass(frozen=True)
class Outcome:
    """``fault``: unicorn's error, or 0. ``rip``: where it stopped. ``visited``: executed instruction addresses."""

    regs: dict[str, int]
    flags: int
    rip: int
    fault: int
    data: bytes
    stack: bytes
    visited: tuple[int, ...]

    @property
    def effect(self) -> tuple[object, ...]:
        """Everything that a caller can notice."""
        return (self.regs, self.flags, self.rip, self.fault, self.data, self.stack)


@dataclass
class Emulator:
    """One machine; :meth:`run` starts each time from the same memory."""

    code: dict[int, bytes] = field(default_factory=dict)
    data: bytes = b""

    def run(
        self,
        start: int,
        *,
        stops: tuple[int, ...] = (DONE,),
        regs: dict[str, int] | None = None,
        flags: int = 2,
        limit: int = 2000,
    ) -> Outcome:
        """Execute from ``start``, called with DONE as return address, until one of ``stops`` is reached."""
        uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        uc.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
        for addr, size in ((TEXT, TEXT_SIZE), (STUBS, TEXT_SIZE), (DATA, DATA_SIZE), (STACK, STACK_SIZE)):
            uc.mem_map(addr, size)
        for addr, code in {DONE: b"\xf4", **self.code}.items():  # hlt: unicorn decodes ahead
            uc.mem_write(addr, code)
            uc.ctl_remove_cache(addr, addr + len(code))
        uc.mem_write(DATA, self.data.ljust(DATA_SIZE, b"\0"))
        uc.mem_write(STACK_TOP, DONE.to_bytes(8, "little"))
        for name, value in {"rsp": STACK_TOP, **(regs or {})}.items():
            uc.reg_write(_IDS[name], value & (1 << 64) - 1)
        uc.reg_write(_FLAGS, flags)
        visited: list[int] = []

        def on_code(machine: unicorn.Uc, addr: int, size: int, user: object) -> None:
            if addr in stops:
                machine.emu_stop()
            else:
                visited.append(addr)

        uc.hook_add(unicorn.UC_HOOK_CODE, on_code)
        fault = 0
        try:
            uc.emu_start(start, 0, count=limit)
        except unicorn.UcError as error:
            fault = error.errno
        return Outcome(
            regs={name: uc.reg_read(_IDS[name]) for name in _NAMES},
            flags=uc.reg_read(_FLAGS) & ARITHMETIC_FLAGS,
            rip=uc.reg_read(_IDS["rip"]),
            fault=fault,
            data=bytes(uc.mem_read(DATA, DATA_SIZE)),
            stack=bytes(uc.mem_read(STACK, STACK_SIZE)),
            visited=tuple(visited),
        )
