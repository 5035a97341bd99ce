"""A guest of one CPU in unicorn: functions with sites, the enabling's code and data, and what a firing did.

    machine = Machine("fbt:::entry { @[execname] = sum(arg0); }")
    machine.fire(rdi=3)
    machine.table(0)        {(b"bash",): (3,)}

Everything is built by the product (``plan_stubs``, ``build_code``, ``plan_data``); the machine is only memory and a
processor. A hook holds every store against what probes may write: the global variables, the activity word, the
CPU's own block, and the stack below the stack pointer of the moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import unicorn
from unicorn import x86_const as x86

from probekit.buffers.aggs import AggKey
from probekit.buffers.layout import HeaderWord, RawRecord, plan_block, read_records
from probekit.codegen.context import Context, TaskOffsets
from probekit.codegen.image import Image
from probekit.consumer.aggregate import merge, stored_rows
from probekit.consumer.events import Probe as ConsumerProbe
from probekit.enabling.data import plan_data
from probekit.enabling.sites import EnabledSite
from probekit.enabling.stubs import build_code, code_size, plan_stubs
from probekit.ir.build import compile_program
from probekit.ir.ops import Program
from probekit.ir.verify import verify_program
from probekit.isa.assemble import assemble
from probekit.patch.sites import EntrySite, TextFacts, entry_site, exit_sites
from probekit.probe.names import ProbeName
from probekit.providers.api import Probe
from tests.support.emulator import TEXT, TEXT_SIZE

CODE = 0xFFFFFFFFC0000000
CODE_SIZE = 0x40000
DATA = 0xFFFF888004000000
STACK = 0xFFFFC90000000000
STACK_SIZE = 0x8000
STACK_TOP = STACK + STACK_SIZE - 0x1000
GS_BASE = 0xFFFF88807F000000
TASK = 0xFFFF888001234000
PAGE = 0x1000

G = TEXT + 0x8000  # another function, where tail jumps go
RETURN_THUNK = TEXT + 0x8100
CLOCK = TEXT + 0x8200
DONE = TEXT + 0x9000  # where the outermost return goes

TIME = 0x1122334455667788
OFFSETS = TaskOffsets(current=0x1FB80, cpu=0x1FB90, pid=0x560, tgid=0x564, comm=0x720)
SLOT = 0x2E0C0

REGISTERS = tuple("rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15".split())
_IDS = {name: getattr(x86, f"UC_X86_REG_{name.upper()}") for name in (*REGISTERS, "rip")}
IF = 0x200
ARITHMETIC = 0x8D5  # CF PF AF ZF SF OF
_FLAGS_KEPT = 0x244ED5 & ~0x100  # what popfq brings back: arithmetic, IF, DF, NT, AC, ID
_MASK = (1 << 64) - 1

NOP5 = "0f1f440000"
RET = "c3cccccccc"

# Spoils every register that a C function may spoil; refuses a stack that C code would not accept.
_CLOCK = f"""
    lea rax, [rsp + 8]
    test rax, 0xf
    jz aligned
    ud2
aligned:
    mov rcx, 0x1111; mov rdx, rcx; mov rsi, rcx; mov rdi, rcx
    mov r8, rcx; mov r9, rcx; mov r10, rcx; mov r11, rcx
    mov rax, {TIME:#x}
    ret
"""


def jump(opcode: str, at: int, target: int) -> str:
    """``opcode`` (hex) with a rel32 to ``target``, as hex."""
    size = len(bytes.fromhex(opcode)) + 4
    return opcode + (target - at - size & 0xFFFFFFFF).to_bytes(4, "little").hex()


def function_addr(index: int) -> int:
    """Where the machine puts its functions."""
    return TEXT + 0x100 * index


@dataclass(frozen=True)
class Function:
    """Code as hex, and which of its sites are probed. ``clauses``: None means all of the program's."""

    code: str = NOP5 + RET
    kind: str = "entry"
    clauses: tuple[int, ...] | None = None


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
class Machine:
    """``text`` or ``program``; ``functions``: one or more, probed in this order."""

    text: str
    functions: Sequence[Function] = (Function(),)
    slot: int = SLOT
    preemptible: bool = False
    aggsize: int = 1 << 13
    bufsize: int = 1 << 13
    task: TaskOffsets | None = OFFSETS
    clock: int | None = CLOCK
    comm: bytes = b"bash"
    pid: int = 7
    tid: int = 8
    cpu: int = 1
    gs_base: int = GS_BASE
    program: Program = field(init=False)
    image: Image = field(init=False)
    code: bytes = field(init=False)
    context: Context = field(init=False)

    def __post_init__(self) -> None:
        self.program = compile_program(self.text, allow_bare=True)
        assert verify_program(self.program) == []
        self.sites = self._find_sites()
        self.layout = plan_block(
            self.program.aggregations, sites=len(self.sites), aggsize=self.aggsize, bufsize=self.bufsize
        )
        self.plan = plan_data(self.program, self.sites, self.layout, 2)
        self.context = self._context(DATA, self.slot)
        stubs = plan_stubs(self.program, self.sites, self.context)
        self.code, self.edits, self.image = build_code(self.program, self.sites, stubs, self.context, CODE)
        self.inline = stubs.inline
        self.block = DATA + self.plan.block(1)
        self._bad: list[tuple[int, int]] = []
        self._steps = 0
        self._uc = self._machine()

    # -- building ---------------------------------------------------------------------------------------------------

    def _find_sites(self) -> tuple[EnabledSite, ...]:
        facts = TextFacts(
            starts=frozenset({G, *map(function_addr, range(len(self.functions)))}),
            return_thunks=frozenset({RETURN_THUNK}),
            jump_tables=False,
        )
        every = tuple(clause.index for clause in self.program.clauses)
        sites: list[EnabledSite] = []
        for index, function in enumerate(self.functions):
            addr, code = function_addr(index), bytes.fromhex(function.code)
            probe = Probe(100 + index, ProbeName("fbt", "vmlinux", f"f{index}", function.kind), function.kind)  # type: ignore[arg-type]
            if function.kind == "entry":
                entry = entry_site(addr, code[:9])
                assert isinstance(entry, EntrySite)
                found = (entry,)
            else:
                exits = exit_sites(addr, code, facts)
                assert exits.complete and exits.sites
                found = exits.sites
            clauses = every if function.clauses is None else function.clauses
            sites += [
                EnabledSite(len(sites) + n, probe, site, clauses, site.addr - addr) for n, site in enumerate(found)
            ]
        return tuple(sites)

    def _context(self, data: int, slot: int) -> Context:
        return Context(
            layout=self.layout,
            aggregations=self.program.aggregations,
            globals_=tuple(v for v in self.program.variables if v.scope == "global"),
            slot=slot,
            activity=data,
            variables=data + self.plan.variables,
            sites=data + self.plan.sites,
            strings=data + self.plan.strings,
            constants=self.plan.constants,
            preemptible=self.preemptible,
            task=self.task,
            clock=self.clock,
        )

    def _machine(self) -> unicorn.Uc:
        uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        uc.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
        size = -(-self.plan.size // PAGE) * PAGE
        slot_page = (self.gs_base + self.slot & _MASK) & ~(PAGE - 1)
        facts_page = (self.gs_base + OFFSETS.current & _MASK) & ~(PAGE - 1)
        maps = {TEXT: TEXT_SIZE, CODE: CODE_SIZE, DATA: size, STACK: STACK_SIZE, TASK: PAGE}
        for addr, length in {**maps, slot_page: PAGE, facts_page: PAGE}.items():
            uc.mem_map(addr, length)
        pieces = {G: assemble("mov rax, 0x77; ret", G), RETURN_THUNK: b"\xc3", CLOCK: assemble(_CLOCK, CLOCK)}
        pieces |= {DONE: b"\xf4"}  # hlt: unicorn decodes ahead
        for index, function in enumerate(self.functions):
            pieces[function_addr(index)] = bytes.fromhex(function.code)
        for addr, piece in pieces.items():
            uc.mem_write(addr, piece)
        for edit in self.edits:
            assert bytes(uc.mem_read(edit.addr, len(edit.old))) == edit.old
            uc.mem_write(edit.addr, edit.new)
        uc.mem_write(CODE, self.code)
        uc.mem_write(DATA, self.plan.head)
        uc.mem_write(self.block, self.plan.block_head())
        uc.mem_write(self.gs_base + self.slot & _MASK, self.block.to_bytes(8, "little"))
        uc.mem_write(self.gs_base + OFFSETS.current, TASK.to_bytes(8, "little"))
        uc.mem_write(self.gs_base + OFFSETS.cpu, self.cpu.to_bytes(4, "little"))
        uc.mem_write(TASK + OFFSETS.pid, self.tid.to_bytes(4, "little", signed=True))
        uc.mem_write(TASK + OFFSETS.tgid, self.pid.to_bytes(4, "little", signed=True))
        uc.mem_write(TASK + OFFSETS.comm, self.comm.ljust(16, b"\0")[:16])
        uc.reg_write(x86.UC_X86_REG_GS_BASE, self.gs_base)
        for addr, length in maps.items():
            uc.ctl_remove_cache(addr, addr + length)
        uc.hook_add(unicorn.UC_HOOK_MEM_WRITE, self._on_write)
        return uc

    def _on_write(self, uc: unicorn.Uc, access: int, addr: int, size: int, value: int, user: object) -> None:
        addr &= _MASK
        if STACK <= addr < self._stack_top:
            return
        if self.block <= addr and addr + size <= self.block + self.layout.size:
            return
        if addr >= DATA and addr + size <= DATA + self.plan.sites:
            return
        self._bad.append((addr, size))

    @property
    def bound(self) -> int:
        """What the engine would have allocated for the code before it knew any address."""
        rough = self._context(1 << 62, 1 << 40)
        return code_size(self.program, self.sites, plan_stubs(self.program, self.sites, rough), rough, TEXT)

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
            uc.emu_start(function_addr(function), DONE, count=100_000)
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

    def _on_code(self, uc: unicorn.Uc, addr: int, size: int, user: object) -> None:
        self._steps += 1

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
        indexes = [v.index for v in self.program.variables if v.scope == "global"]
        data = self.read(DATA + self.plan.variables, 8 * len(indexes)) if indexes else b""
        return {v: int.from_bytes(data[8 * n : 8 * n + 8], "little", signed=True) for n, v in enumerate(indexes)}

    def table(self, agg: int) -> dict[AggKey, tuple[int, ...]]:
        """What this CPU holds of one aggregation."""
        plan, store = self.program.aggregations[agg], self.layout.stores[agg]
        probes = {s.index: ConsumerProbe(s.probe.id, s.probe.name) for s in self.sites}
        rows, corrupt = stored_rows(plan, store, self.read(self.block + store.offset, store.size), probes)
        assert corrupt == 0
        return {key: tuple(words) for key, words in merge(plan, [rows]).items()}
