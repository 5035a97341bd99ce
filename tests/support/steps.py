"""One instruction in unicorn, at its own address or as a copy elsewhere: what did it do?

    machine = Stepper(image_start, image)          # the kernel's text where it really is
    machine.run(addr, size, state)  ->  Effect     # until control leaves addr .. addr + size

One machine for many thousand runs: what a run has stored is undone behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import unicorn
from unicorn import x86_const as x86

__all__ = ("SCRATCH", "SCRATCH_SIZE", "SLOT", "Effect", "State", "Stepper")

SLOT = 0xFFFFFFFFC0200000
SLOT_SIZE = 0x1000
SCRATCH = 0xFFFF888001000000
SCRATCH_SIZE = 0x20000
STACK = 0xFFFFC90000200000
STACK_SIZE = 0x8000
STACK_TOP = STACK + STACK_SIZE // 2
PERCPU = 0xFFFF88807F000000
PERCPU_SIZE = 0x80000

REGISTERS = tuple("rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15".split())
_GENERAL = tuple(getattr(x86, f"UC_X86_REG_{name.upper()}") for name in REGISTERS)
_XMM = tuple(x86.UC_X86_REG_XMM0 + number for number in range(16))
_RIP, _FLAGS = x86.UC_X86_REG_RIP, x86.UC_X86_REG_EFLAGS
_COMPARED_FLAGS = 0x40ED5  # CF PF AF ZF SF IF DF OF AC
_LIMIT = 4000  # a REP with a large count goes round that often
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class State:
    """Registers by name, flags, and xmm0..15 (empty: they stay 0, and are not looked at)."""

    regs: dict[str, int]
    flags: int
    xmm: tuple[int, ...]


@dataclass(frozen=True)
class Effect:
    """All that can be told apart. ``stored``: bytes by address; ``fault``: unicorn's, or 0; ``rip``: where next."""

    regs: tuple[int, ...]
    xmm: tuple[int, ...]
    flags: int
    rip: int
    fault: int
    stored: dict[int, int] = field(hash=False)


class Stepper:
    """``start``, ``image``: of the kernel's text; ``end``: of the whole image, data included."""

    def __init__(self, start: int, image: bytes, end: int) -> None:
        self._uc = uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        uc.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
        low, high = start & -0x200000, -(-end // 0x200000) * 0x200000
        for addr, size in (
            (low, high - low),
            (SLOT, SLOT_SIZE),
            (SCRATCH, SCRATCH_SIZE),
            (STACK, STACK_SIZE),
            (PERCPU, PERCPU_SIZE),
        ):
            uc.mem_map(addr, size)
        uc.mem_write(start, image)
        pattern = bytes(n * 7 & 0xFF for n in range(4096))
        for addr, size in ((SCRATCH, SCRATCH_SIZE), (STACK, STACK_SIZE), (PERCPU, PERCPU_SIZE)):
            uc.mem_write(addr, pattern * (size // 4096))
        uc.reg_write(x86.UC_X86_REG_GS_BASE, PERCPU)
        uc.reg_write(x86.UC_X86_REG_FS_BASE, SCRATCH)
        self._clean = uc.context_save()
        self._begin = uc.context_save()
        self._state: State | None = None
        self._old: dict[int, int] = {}
        self._range = range(0)
        uc.hook_add(unicorn.UC_HOOK_MEM_WRITE, self._on_write)
        uc.hook_add(unicorn.UC_HOOK_CODE, self._on_code)

    def run(self, addr: int, size: int, state: State) -> Effect:
        """Execute from ``addr`` until control leaves its ``size`` bytes; memory is then what it was before."""
        uc = self._uc
        self._load(state)
        self._range, self._old = range(addr, addr + size), {}
        fault = 0
        try:
            uc.emu_start(addr, 0, count=_LIMIT)
        except unicorn.UcError as error:
            fault = error.errno
        stored = {at: uc.mem_read(at, 1)[0] for at in self._old}
        effect = Effect(
            regs=tuple(uc.reg_read(number) for number in _GENERAL),
            xmm=tuple(uc.reg_read(number) for number in _XMM[: len(state.xmm)]),
            flags=uc.reg_read(_FLAGS) & _COMPARED_FLAGS,
            rip=uc.reg_read(_RIP),
            fault=fault,
            stored={at: byte for at, byte in stored.items() if byte != self._old[at]},
        )
        for at, byte in self._old.items():
            uc.mem_write(at, bytes((byte,)))
        return effect

    def _load(self, state: State) -> None:
        """Set all registers. The same state again costs one copy: to write registers one by one takes unicorn long."""
        uc = self._uc
        if state is self._state:
            uc.context_restore(self._begin)
            return
        uc.context_restore(self._clean)
        for number, name in zip(_GENERAL, REGISTERS, strict=True):
            uc.reg_write(number, state.regs[name])
        for number, value in zip(_XMM, state.xmm, strict=bool(state.xmm)):
            uc.reg_write(number, value)
        uc.reg_write(_FLAGS, state.flags | 2)
        uc.context_update(self._begin)
        self._state = state

    def put_slot(self, code: bytes) -> None:
        """The copy at ``SLOT``; int3 behind it."""
        self._uc.mem_write(SLOT, code.ljust(64, b"\xcc"))
        self._uc.ctl_remove_cache(SLOT, SLOT + 64)

    def _on_code(self, uc: unicorn.Uc, addr: int, size: int, user: object) -> None:
        if addr & _MASK not in self._range:
            uc.emu_stop()

    def _on_write(self, uc: unicorn.Uc, access: int, addr: int, size: int, value: int, user: object) -> None:
        for at, byte in enumerate(uc.mem_read(addr & _MASK, size), addr & _MASK):
            self._old.setdefault(at, byte)
