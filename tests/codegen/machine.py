"""A guest of one CPU in unicorn: functions with sites, the enabling's code and data, and what a firing did.

    machine = Machine("fbt:::entry { @[execname] = sum(arg0); }")
    machine.fire(rdi=3)
    machine.table(0)        {(b"bash",): (3,)}

Everything is built by the product (``plan_stubs``, ``build_code``, ``plan_data``); the machine is only memory and a
processor. A hook holds every store against what probes may write: the global variables, the activity word, the
CPU's own block, and the stack below the stack pointer of the moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import unicorn
from unicorn import x86_const as x86

from probekit.buffers.aggs import AggKey
from probekit.buffers.layout import HeaderWord, Policy, RawRecord, plan_block, read_records
from probekit.codegen.context import CodegenContext
from probekit.codegen.image import CodeImage
from probekit.codegen.storage import StorageOptions, plan_storage
from probekit.codegen.verify import verify_code
from probekit.consumer.aggregations import merge, stored_rows
from probekit.consumer.events import ProbeIdentity
from probekit.enabling.guest_engine.data_layout import VARIABLES, data_context, guest_clauses, plan_data
from probekit.enabling.guest_engine.stubs import BuiltCode, build_code, code_size, plan_stubs
from probekit.enabling.sites import EnabledSite
from probekit.guest.offsets import KernelServices, PathOffsets, RunTime, TaskOffsets
from probekit.ir.build import compile_program
from probekit.ir.ops import Program
from probekit.ir.verify import verify_program
from probekit.isa.assemble import assemble
from probekit.patch.exits import exit_sites
from probekit.patch.hooks import Called, Hook, MarkerHook
from probekit.patch.sites import EntrySite, ExitSite, TextFacts, entry_site
from probekit.probe.names import ProbeName
from probekit.providers.api import Probe
from tests.support.emulator import TEXT, TEXT_SIZE

CODE = 0xFFFFFFFFC0000000
CODE_SIZE = 0x80000
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
WALL = TEXT + 0x8300
LOADS = {size: TEXT + 0x8400 + 0x100 * n for n, size in enumerate((1, 2, 4, 8))}
USER_COPY = TEXT + 0x8800
USER_TEXT = TEXT + 0x8900
UNWIND = TEXT + 0x8A00
TO_USER = TEXT + 0x8C00
USER_OKAY = TEXT + 0x8D00
PANIC = TEXT + 0x8E00
SEND_SIGNAL = TEXT + 0x8F00
DONE = TEXT + 0x9000  # where the outermost return goes

TIME = 0x1122334455667788
OFFSETS = TaskOffsets(
    current=0x1FB80,
    cpu=0x1FB90,
    pid=0x560,
    tgid=0x564,
    comm=0x720,
    parent=0x570,
    start=0x580,
    cred=0x710,
    uid=0x8,
    gid=0xC,
)
PATHS = PathOffsets(
    fs=0x610,
    memory=0x618,
    cwd=0x28,
    root=0x18,
    path_mount=0,
    path_dentry=8,
    mount=0x20,
    mount_root=0,
    mount_parent=-0x10,
    mountpoint=-0x8,
    parent=0x18,
    name=0x28,
    name_size=0x24,
    hashed=0x10,
    arg_start=0x130,
    arg_end=0x138,
)
SIGNAL = TASK + PAGE + 0x800
"""Where the machine's kernel keeps the signal that was sent last."""

PREEMPT_COUNT = 0x1FBA0
CRED = TASK + 0x800
PARENT = TASK + PAGE
KMEM = 0xFFFF888005000000
KMEM_SIZE = 2 * PAGE
USER = 0x400000
USER_SIZE = PAGE
WALL_TIME = 0x2233445566778899
RUN = RunTime(
    total=0x600,
    since=0x608,
    clock=0x1FBB0,
    task_clock=0x1FBB8,
    now=TEXT + 0x8B00,
    lock=0x1FBD0,
    interrupts=(0x1FBC0, 0x1FBC8),
)
RUN_WORDS = {"now": 5_000_900, "clock": 5_000_800, "task_clock": 4_000_700, "since": 4_000_000, "total": 300}
INTERRUPTS = (1_000_170, 1_000_100)
RUN_NS = 5_000_900 - (5_000_800 - 4_000_700) - (1_000_170 - 1_000_100) - 4_000_000 + 300

UID, GID, PPID = 1000, 0xFFFFFFFE, 3
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


def _clobber() -> str:
    return "; ".join(f"mov {name}, 0x1111" for name in ("rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11"))


def _load_function(size: int, ranges: Sequence[tuple[int, int]]) -> str:
    """``__get_user_nocheck_N`` where the exception table knows which addresses are mapped."""
    checks = "\n".join(
        f"""
        mov rcx, {start:#x}; mov rdx, rax; sub rdx, rcx; mov rcx, {length - size:#x}; cmp rdx, rcx; jbe good
        """
        for start, length in ranges
        if length >= size
    )
    load = {1: "movzx edx, byte ptr [rax]", 2: "movzx edx, word ptr [rax]", 4: "mov edx, dword ptr [rax]"}
    return f"""
        push rcx
        {checks}
        pop rcx
        mov rax, -14
        xor edx, edx
        ret
    good:
        pop rcx
        {load.get(size, "mov rdx, qword ptr [rax]")}
        xor eax, eax
        ret
    """


_ALIGNED = "lea rax, [rsp + 8]; test rax, 0xf; jz aligned; ud2; aligned:"

_USER_COPY = f"""
    {_ALIGNED}
    mov rcx, {USER:#x}; mov rax, rsi; sub rax, rcx; jb bad; cmp rax, {USER_SIZE:#x}; ja bad
    add rax, rdx; jb bad; cmp rax, {USER_SIZE:#x}; ja bad
next:
    test rdx, rdx
    jz done
    mov al, byte ptr [rsi]; mov byte ptr [rdi], al
    inc rsi; inc rdi; dec rdx
    jmp next
done:
    {_clobber()}
    xor eax, eax
    ret
bad:
    {_clobber()}
    mov rax, -14
    ret
"""

_USER_TEXT = f"""
    {_ALIGNED}
    xor r8d, r8d
next:
    cmp r8, rdx; jae cut
    mov rcx, {USER:#x}; mov rax, rsi; sub rax, rcx; jb bad; cmp rax, {USER_SIZE:#x}; jae bad
    mov al, byte ptr [rsi]; mov byte ptr [rdi], al
    inc rsi; inc rdi; inc r8
    test al, al
    jnz next
    mov rax, r8
    jmp out
cut:
    mov byte ptr [rdi - 1], 0
    mov rax, rdx
    jmp out
bad:
    mov rax, -14
out:
    {_clobber()}
    ret
"""

# copy_to_user_nofault: what is there already is changed where the task's memory is, and nothing where it is not.
_TO_USER = f"""
    {_ALIGNED}
    mov rcx, {USER:#x}; mov rax, rdi; sub rax, rcx; jb bad; cmp rax, {USER_SIZE:#x}; ja bad
    add rax, rdx; jb bad; cmp rax, {USER_SIZE:#x}; ja bad
next:
    test rdx, rdx
    jz done
    mov al, byte ptr [rsi]; mov byte ptr [rdi], al
    inc rsi; inc rdi; dec rdx
    jmp next
done:
    {_clobber()}
    xor eax, eax
    ret
bad:
    {_clobber()}
    mov rax, -14
    ret
"""

# bpf_send_signal: at once where interrupts are on, which it must never be here.
_SEND_SIGNAL = f"""
    {_ALIGNED}
    pushfq; pop rax; test eax, {IF:#x}; jz later; ud2
later:
    mov rax, -22
    cmp edi, 64; ja out
    mov rcx, {SIGNAL:#x}; mov dword ptr [rcx], edi
    xor eax, eax
out:
    {_clobber()}
    ret
"""

# stack_trace_save_regs(regs, store, size, skip): what it was given, so that a test can see it.
_UNWIND = f"""
    {_ALIGNED}
    mov r8, qword ptr [rdi + 152]
    mov rax, qword ptr [r8]; mov qword ptr [rsi], rax
    mov eax, 1
    cmp edx, 2; jb out
    mov rcx, qword ptr [rdi + 128]; mov qword ptr [rsi + 8], rcx
    mov eax, 2
    cmp edx, 3; jb out
    mov rcx, qword ptr [rdi + 32]; mov qword ptr [rsi + 16], rcx
    mov eax, 3
out:
    {_clobber()}
    ret
"""


def jump(opcode: str, at: int, target: int) -> str:
    """``opcode`` (hex) with a rel32 to ``target``, as hex."""
    size = len(bytes.fromhex(opcode)) + 4
    return opcode + (target - at - size & 0xFFFFFFFF).to_bytes(4, "little").hex()


KMEM_BYTES = bytes((7 * n + n // 256) & 0xFF for n in range(KMEM_SIZE - 64)).ljust(KMEM_SIZE, b"k")
"""What is in kernel memory; its last bytes are no NUL."""


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
    """``functions``: one or more, probed in this order. ``told_sites``: for the layout, if not as many as there are."""

    text: str
    functions: Sequence[Function] = (Function(),)
    slot: int = SLOT
    preemptible: bool = False
    aggsize: int = 1 << 13
    bufsize: int = 1 << 13
    task: TaskOffsets | None = OFFSETS
    clock: int | None = CLOCK
    tsc_khz: int = 2_000_000
    tsc_shared: bool = False
    comm: bytes = b"bash"
    pid: int = 7
    tid: int = 8
    cpu: int = 1
    gs_base: int = GS_BASE
    told_sites: int = 0
    start_time: int = 0x77
    preempt_count: int = 2
    dynvarsize: int = 1 << 13
    scratchsize: int = 1 << 10
    nspec: int = 1
    policy: Policy = "switch"
    strsize: int | None = None
    measured: bool = False
    user_okay: bool = True
    services: bool = True
    program: Program = field(init=False)
    image: CodeImage = field(init=False)
    built: BuiltCode = field(init=False)
    code: bytes = field(init=False)
    context: CodegenContext = field(init=False)

    def __post_init__(self) -> None:
        self.program = compile_program(self.text, allow_bare=True, string_size=self.strsize)
        assert verify_program(self.program) == []
        self.sites = self._find_sites()
        self.storage = plan_storage(
            self.program,
            guest_clauses(self.program, self.sites),
            StorageOptions(self.dynvarsize, self.scratchsize, self.nspec),
            VARIABLES,
        )
        self.layout = plan_block(
            self.program.aggregations,
            sites=self.told_sites or len(self.sites),
            aggsize=self.aggsize,
            bufsize=self.bufsize,
            scratch=self.storage.scratch.size,
            policy=self.policy,
            measured=len(self.program.clauses) if self.measured else 0,
        )
        self.plan = plan_data(self.program, self.sites, self.storage, self.layout, 2)
        self.context = self._context(DATA, self.slot)
        stubs = plan_stubs(self.program, self.sites, self.context)
        built = build_code(self.program, self.sites, stubs, self.context, CODE)
        self.code, self.edits, self.image = built.code, built.edits, built.image
        self.built = built
        verify_code(self.image.layout, self.context)
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
            if function.kind == "tracepoint":
                found: tuple[EntrySite | ExitSite | Called, ...] = (Hook(addr, 0),)
            elif function.kind == "marker":
                found = (MarkerHook(addr, 0, (addr + 0x40, 0), 0, ()),)
            elif function.kind == "entry":
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

    def _context(self, data: int, slot: int) -> CodegenContext:
        return data_context(self.program, self.plan, self.layout, self, data=data, slot=slot & _MASK)

    @property
    def kernel(self) -> KernelServices:
        """What the machine's kernel has; without ``services`` only what reading memory takes."""
        if not self.services:
            return KernelServices(load=LOADS, preempt_count=PREEMPT_COUNT)
        return KernelServices(
            load=LOADS,
            user_copy=USER_COPY,
            user_text=USER_TEXT,
            to_user=TO_USER,
            user_okay=USER_OKAY,
            panic=PANIC,
            send_signal=SEND_SIGNAL,
            stack=UNWIND,
            wall=WALL,
            preempt_count=PREEMPT_COUNT,
            run_time=RUN,
            paths=PATHS,
        )

    def _machine(self) -> unicorn.Uc:
        uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        uc.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
        size = -(-self.plan.size // PAGE) * PAGE
        slot_page = (self.gs_base + self.slot & _MASK) & ~(PAGE - 1)
        facts_page = (self.gs_base + OFFSETS.current & _MASK) & ~(PAGE - 1)
        maps = {TEXT: TEXT_SIZE, CODE: CODE_SIZE, DATA: size, STACK: STACK_SIZE, TASK: 2 * PAGE, KMEM: KMEM_SIZE}
        maps |= {USER: USER_SIZE}
        readable = [(addr, maps[addr]) for addr in (DATA, TASK, KMEM, STACK)]
        for addr, length in {**maps, slot_page: PAGE, facts_page: PAGE}.items():
            uc.mem_map(addr, length)
        pieces = {G: assemble("mov rax, 0x77; ret", G), RETURN_THUNK: b"\xc3", CLOCK: assemble(_CLOCK, CLOCK)}
        pieces |= {WALL: assemble(_CLOCK.replace(hex(TIME), hex(WALL_TIME)), WALL)}
        pieces |= {at: assemble(_load_function(size, readable), at) for size, at in LOADS.items()}
        pieces |= {at: assemble(text, at) for at, text in ((USER_COPY, _USER_COPY), (USER_TEXT, _USER_TEXT))}
        pieces |= {UNWIND: assemble(_UNWIND, UNWIND), TO_USER: assemble(_TO_USER, TO_USER), PANIC: b"\xf4"}  # hlt
        pieces |= {SEND_SIGNAL: assemble(_SEND_SIGNAL, SEND_SIGNAL)}
        pieces |= {USER_OKAY: assemble(_clobber() + f"; mov eax, {0x5A00 | self.user_okay:#x}; ret", USER_OKAY)}
        pieces |= {RUN.now: assemble(_CLOCK.replace(hex(TIME), hex(RUN_WORDS["now"])), RUN.now)}
        pieces |= {DONE: b"\xf4"}  # hlt: unicorn decodes ahead
        for index, function in enumerate(self.functions):
            pieces[function_addr(index)] = bytes.fromhex(function.code)
        for addr, piece in pieces.items():
            uc.mem_write(addr, piece)
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
        uc.mem_write(self.gs_base + OFFSETS.current, TASK.to_bytes(8, "little"))
        uc.mem_write(self.gs_base + OFFSETS.cpu, self.cpu.to_bytes(4, "little"))
        uc.mem_write(TASK + OFFSETS.pid, self.tid.to_bytes(4, "little", signed=True))
        uc.mem_write(TASK + OFFSETS.tgid, self.pid.to_bytes(4, "little", signed=True))
        uc.mem_write(TASK + OFFSETS.comm, self.comm.ljust(16, b"\0")[:16])
        for word, at in (("clock", self.gs_base + RUN.clock), ("task_clock", self.gs_base + RUN.task_clock)):
            uc.mem_write(at, RUN_WORDS[word].to_bytes(8, "little"))
        for at, value in zip(RUN.interrupts or (), INTERRUPTS, strict=True):
            uc.mem_write(self.gs_base + at, value.to_bytes(8, "little"))
        for word, at in (("since", TASK + RUN.since), ("total", TASK + RUN.total)):
            uc.mem_write(at, RUN_WORDS[word].to_bytes(8, "little"))
        uc.mem_write(self.gs_base + PREEMPT_COUNT, self.preempt_count.to_bytes(4, "little"))
        uc.mem_write(TASK + (OFFSETS.parent or 0), PARENT.to_bytes(8, "little"))
        uc.mem_write(PARENT + (OFFSETS.parent or 0), PARENT.to_bytes(8, "little"))
        uc.mem_write(PARENT + OFFSETS.tgid, PPID.to_bytes(4, "little"))
        uc.mem_write(TASK + (OFFSETS.start or 0), self.start_time.to_bytes(8, "little"))
        uc.mem_write(TASK + (OFFSETS.cred or 0), CRED.to_bytes(8, "little"))
        uc.mem_write(CRED + (OFFSETS.uid or 0), UID.to_bytes(4, "little"))
        uc.mem_write(CRED + (OFFSETS.gid or 0), GID.to_bytes(4, "little"))
        uc.mem_write(KMEM, KMEM_BYTES)
        uc.mem_write(USER, KMEM_BYTES[:USER_SIZE])
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
        if addr == SIGNAL:
            return
        if USER <= addr < USER + USER_SIZE and TO_USER <= uc.reg_read(_IDS["rip"]) < TO_USER + 0x100:
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
