"""A guest of one CPU in unicorn: functions with sites, the enabling's code and data, and what a firing did.

    machine = Machine("fbt:::entry { @[execname] = sum(arg0); }")
    machine.fire(rdi=3)
    machine.table(0)        {(b"bash",): (3,)}

The machine is only memory and a processor; the product has built everything else. A hook checks every store against
what probes may write: the global variables, the activity word, the CPU's own block, and the stack below the stack
pointer of the moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import unicorn
from unicorn import x86_const as x86

from probekit.buffers.aggs import AggKey
from probekit.buffers.layout import HeaderWord, RawRecord, read_records
from probekit.consumer.aggregations import merge, stored_rows
from probekit.consumer.events import ProbeIdentity
from tests.codegen.built_program import BuiltProgram, function_addr
from tests.codegen.emulated_kernel import (
    CODE,
    CODE_SIZE,
    DATA,
    DONE,
    IF,
    KMEM,
    KMEM_BYTES,
    KMEM_SIZE,
    OFFSETS,
    PAGE,
    SIGNAL,
    STACK,
    STACK_SIZE,
    STACK_TOP,
    TASK,
    TO_USER,
    USER,
    USER_SIZE,
    kernel_code,
    task_memory,
)
from tests.support.emulator import TEXT, TEXT_SIZE

REGISTERS = tuple("rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15".split())
_IDS = {name: getattr(x86, f"UC_X86_REG_{name.upper()}") for name in (*REGISTERS, "rip")}
ARITHMETIC = 0x8D5  # CF PF AF ZF SF OF
_FLAGS_KEPT = 0x244ED5 & ~0x100  # what popfq brings back: arithmetic, IF, DF, NT, AC, ID
_MASK = (1 << 64) - 1


def jump(opcode: str, at: int, target: int) -> str:
    """``opcode`` (hex) with a rel32 to ``target``, as hex."""
    size = len(bytes.fromhex(opcode)) + 4
    return opcode + (target - at - size & 0xFFFFFFFF).to_bytes(4, "little").hex()


@dataclass(frozen=True)
class Fired:
    """What one call of a function left. ``steps``: instructions executed in our code; ``bad``: forbidden stores."""

    regs: dict[str, int]
    flags: int
    rip: int
    fault: int
    steps: int
    bad: tuple[tuple[int, int], ...]


@dataclass
class Machine(BuiltProgram):
    """The guest: a program built for it, in memory, with a processor."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._bad: list[tuple[int, int]] = []
        self._steps = 0
        self._uc = self._machine()

    def _machine(self) -> unicorn.Uc:
        uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        uc.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
        size = -(-self.plan.size // PAGE) * PAGE
        slot_page = (self.gs_base + self.slot & _MASK) & ~(PAGE - 1)
        facts_page = (self.gs_base + OFFSETS.current & _MASK) & ~(PAGE - 1)
        maps = {TEXT: TEXT_SIZE, CODE: CODE_SIZE, DATA: size, STACK: STACK_SIZE, TASK: 2 * PAGE, KMEM: KMEM_SIZE}
        maps |= {USER: USER_SIZE}
        for addr, length in {**maps, slot_page: PAGE, facts_page: PAGE}.items():
            uc.mem_map(addr, length)
        readable = [(addr, maps[addr]) for addr in (DATA, TASK, KMEM, STACK)]
        pieces = kernel_code(readable, user_okay=self.user_okay, empty_is_0=self.empty_is_0)
        for index, function in enumerate(self.functions):
            pieces[function_addr(index)] = bytes.fromhex(function.code)
        for addr, piece in pieces.items():
            uc.mem_write(addr, piece)
        self._enable(uc)
        task = task_memory(
            gs_base=self.gs_base,
            cpu=self.cpu,
            pid=self.pid,
            tid=self.tid,
            comm=self.comm,
            start_time=self.start_time,
            preempt_count=self.preempt_count,
        )
        for addr, data in task:
            uc.mem_write(addr, data)
        uc.mem_write(KMEM, KMEM_BYTES)
        uc.mem_write(USER, KMEM_BYTES[:USER_SIZE])
        uc.reg_write(x86.UC_X86_REG_GS_BASE, self.gs_base)
        for addr, length in maps.items():
            uc.ctl_remove_cache(addr, addr + length)
        uc.hook_add(unicorn.UC_HOOK_MEM_WRITE, self._on_write)
        return uc

    def _enable(self, uc: unicorn.Uc) -> None:
        """Write the enabling's edits, code and data."""
        # The function stands for the tracepoint or marker: it calls ours at its end.
        called = [(hook.tracepoint, hook.function) for hook in self.built.tracepoint_probes]
        for addr, function in called + [(marker.addr, stub) for marker, stub in self.built.markers]:
            uc.mem_write(addr, bytes.fromhex(jump("e9", addr, function)))
        for edit in self.edits:
            assert bytes(uc.mem_read(edit.addr, len(edit.old))) == edit.old
            uc.mem_write(edit.addr, edit.new)
        uc.mem_write(CODE, self.code)
        uc.mem_write(DATA + self.plan.sites, self.plan.head)
        uc.mem_write(self.block, self.plan.block_head())
        uc.mem_write(self.gs_base + self.slot & _MASK, self.block.to_bytes(8, "little"))

    def _on_write(self, uc: unicorn.Uc, access: int, addr: int, size: int, value: int, user: object) -> None:
        addr &= _MASK
        if STACK <= addr < self._stack_top:
            return
        if self.block <= addr and addr + size <= self.block + self.layout.size:
            return
        if addr >= DATA and addr + size <= DATA + self.plan.sites:
            return
        if addr == SIGNAL:
            return
        if USER <= addr < USER + USER_SIZE and TO_USER <= uc.reg_read(_IDS["rip"]) < TO_USER + 0x100:
            return
        self._bad.append((addr, size))

    # -- running ----------------------------------------------------------------------------------------------------

    def fire(
        self, function: int = 0, *, flags: int = IF | 2, rsp: int = STACK_TOP, count: bool = False, **regs: int
    ) -> Fired:
        """Call a function. ``count``: count the instructions in our code, which is slow."""
        uc = self._uc
        self._bad, self._steps, self._stack_top = [], 0, rsp
        for register in REGISTERS:
            uc.reg_write(_IDS[register], regs.get(register, 0x5A5A_0000 + _IDS[register]) & _MASK)
        uc.reg_write(_IDS["rsp"], rsp)
        uc.mem_write(rsp, DONE.to_bytes(8, "little"))
        uc.reg_write(x86.UC_X86_REG_EFLAGS, flags)
        hook = uc.hook_add(unicorn.UC_HOOK_CODE, self._on_code, None, CODE, CODE + CODE_SIZE - 1) if count else None
        if count:
            uc.ctl_remove_cache(CODE, CODE + CODE_SIZE)  # translated without the hook before
        fault = 0
        try:
            uc.emu_start(function_addr(function), DONE, count=20_000_000)
        except unicorn.UcError as error:
            fault = error.errno
        if hook is not None:
            uc.hook_del(hook)
        return Fired(
            regs={name: uc.reg_read(_IDS[name]) for name in REGISTERS},
            flags=uc.reg_read(x86.UC_X86_REG_EFLAGS) & _FLAGS_KEPT,
            rip=uc.reg_read(_IDS["rip"]),
            fault=fault,
            steps=self._steps,
            bad=tuple(self._bad),
        )

    def fire_unpatched(self, function: int = 0, *, flags: int = IF | 2, rsp: int = STACK_TOP, **regs: int) -> Fired:
        """The same call as if no site were patched."""
        self._patch([(edit.addr, edit.old) for edit in self.edits])
        fired = self.fire(function, flags=flags, rsp=rsp, **regs)
        self._patch([(edit.addr, edit.new) for edit in self.edits])
        return fired

    def on_read(self, addr: int, call: Callable[[unicorn.Uc, int, int, int, int, object], None]) -> None:
        """Have ``call`` made before each read of the word at ``addr``."""
        self._uc.hook_add(unicorn.UC_HOOK_MEM_READ, call, None, addr, addr + 7)

    def _patch(self, writes: Sequence[tuple[int, bytes]]) -> None:
        for addr, data in writes:
            self._uc.mem_write(addr, data)
        self._uc.ctl_remove_cache(TEXT, TEXT + TEXT_SIZE)

    def _on_code(self, uc: unicorn.Uc, addr: int, size: int, user: object) -> None:
        self._steps += 1

    def call(self, function: int) -> int:
        """Call a function of ours as the engine does at a safe point; what it returns."""
        self._bad, self._stack_top = [], STACK_TOP
        self._uc.reg_write(_IDS["rsp"], STACK_TOP)
        self._uc.mem_write(STACK_TOP, DONE.to_bytes(8, "little"))
        self._uc.emu_start(function, DONE, count=20_000_000)
        assert self._bad == []
        return int(self._uc.reg_read(_IDS["rax"]))

    def memory(self) -> bytes:
        """All of our data memory."""
        return self.read(DATA, self.plan.size)

    def read(self, addr: int, size: int) -> bytes:
        """Guest memory."""
        return bytes(self._uc.mem_read(addr, size))

    def write(self, addr: int, data: bytes) -> None:
        """Change guest memory as the host would."""
        self._uc.mem_write(addr, data)

    # -- what the host sees -----------------------------------------------------------------------------------------

    def word(self, index: int) -> int:
        """A word of the block's header."""
        return int.from_bytes(self.read(self.block + 8 * index, 8), "little")

    def set_word(self, index: int, value: int) -> None:
        """Change a word of the block's header."""
        self.write(self.block + 8 * index, value.to_bytes(8, "little"))

    @property
    def activity(self) -> int:
        """The word that silences thunks."""
        return int.from_bytes(self.read(DATA, 8), "little")

    def set_activity(self, value: int) -> None:
        """Silence, or not."""
        self.write(DATA, value.to_bytes(8, "little"))

    def drain(self) -> list[RawRecord]:
        """Everything between tail and head; the tail moves."""
        head, tail = self.word(HeaderWord.HEAD), self.word(HeaderWord.TAIL)
        ring = self.read(self.block + self.layout.ring_offset, self.layout.ring_size)
        records, sound = read_records(ring, head, tail) if ring else ([], head == tail)
        assert sound
        self.set_word(HeaderWord.TAIL, head)
        return records

    def globals_(self) -> dict[int, int]:
        """Every global's value, signed, by its index."""
        return {
            v.index: int.from_bytes(self.read(DATA + self.storage.globals_[v.index].offset, 8), "little", signed=True)
            for v in self.program.variables
            if v.scope == "global" and v.plain and v.kind == "int"
        }

    def table(self, agg: int) -> dict[AggKey, tuple[int, ...]]:
        """What this CPU holds of one aggregation."""
        plan, store = self.program.aggregations[agg], self.layout.stores[agg]
        probes = {s.number: ProbeIdentity(s.probe.id, s.probe.name) for s in self.sites}
        rows, corrupt = stored_rows(plan, store, self.read(self.block + store.offset, store.size), probes)
        assert corrupt == 0
        return {key: tuple(words) for key, words in merge(plan, [rows]).items()}
