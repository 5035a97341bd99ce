"""A script compiled for the emulated guest: its sites, and the enabling's code and data.

Everything is built by the product (``plan_stubs``, ``build_code``, ``plan_data``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from probekit.buffers.layout import Policy, plan_block
from probekit.codegen.context import CodegenContext
from probekit.codegen.image import CodeImage
from probekit.codegen.storage import StorageOptions, plan_storage
from probekit.codegen.verify import verify_code
from probekit.enabling.guest_engine.data_layout import VARIABLES, data_context, guest_clauses, plan_data
from probekit.enabling.guest_engine.stubs import BuiltCode, build_code, code_size, plan_stubs
from probekit.enabling.sites import EnabledSite
from probekit.guest.offsets import KernelServices, TaskOffsets
from probekit.ir.build import compile_program
from probekit.ir.ops import Program
from probekit.ir.verify import verify_program
from probekit.kernel.syscalls import SyscallEntry
from probekit.patch.find_exits import exit_sites
from probekit.patch.hooks import Hook, MarkerHook, TracepointHook
from probekit.patch.insn_sites import instruction_sites
from probekit.patch.sites import EntrySite, Site, TextFacts, entry_site
from probekit.probe.names import ProbeName
from probekit.providers.api import ENTRY_KINDS, Probe
from tests.codegen.emulated_kernel import (
    CLOCK,
    CODE,
    DATA,
    GS_BASE,
    LOADS,
    OFFSETS,
    PREEMPT_COUNT,
    RETURN_THUNK,
    SLOT,
    SYSCALLS,
    G,
    kernel_services,
)
from tests.support.emulator import TEXT

NOP5 = "0f1f440000"
RET = "c3cccccccc"
_MASK = (1 << 64) - 1


def function_addr(index: int) -> int:
    """Where the machine puts its functions."""
    return TEXT + 0x100 * index


@dataclass(frozen=True)
class Function:
    """Code as hex, and which of its sites are probed. ``clauses``: None means all of the program's.

    ``at``: the index of a function before it that is probed once more. ``offset``: of the instruction that is probed.
    ``call``, ``compat``: see :class:`EnabledSite`.
    """

    code: str = NOP5 + RET
    kind: str = "entry"
    clauses: tuple[int, ...] | None = None
    at: int | None = None
    offset: int = 0
    call: int | None = None
    compat: bool = False


@dataclass
class BuiltProgram:
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
    empty_is_0: bool = False
    services: bool = True
    entry: SyscallEntry = SYSCALLS
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

    def _find_sites(self) -> tuple[EnabledSite, ...]:
        facts = TextFacts(
            starts=frozenset({G, *map(function_addr, range(len(self.functions)))}),
            return_thunks=frozenset({RETURN_THUNK}),
            jump_tables=False,
        )
        every = tuple(clause.index for clause in self.program.clauses)
        sites: list[EnabledSite] = []
        for index, function in enumerate(self.functions):
            place = index if function.at is None else function.at
            addr, code = function_addr(place), bytes.fromhex(self.functions[place].code)
            probe = Probe(100 + index, ProbeName("fbt", "vmlinux", f"f{index}", function.kind), function.kind)  # type: ignore[arg-type]
            if function.kind == "tracepoint":
                found: tuple[Site | Hook, ...] = (TracepointHook(addr, 0),)
            elif function.kind == "marker":
                found = (MarkerHook(addr, 0, (addr + 0x40, 0), 0, ()),)
            elif function.kind == "instruction":
                found = (instruction_sites(addr, code, replace(facts, trapping=True)).sites[function.offset],)
            elif function.kind in ENTRY_KINDS:
                entry = entry_site(addr, code[:9])
                assert isinstance(entry, EntrySite)
                found = (entry,)
            else:
                exits = exit_sites(addr, code, facts)
                assert exits.complete and exits.sites
                found = exits.sites
            clauses = every if function.clauses is None else function.clauses
            sites += [
                EnabledSite(len(sites) + n, probe, site, clauses, site.addr - addr, function.call, function.compat)
                for n, site in enumerate(found)
            ]
        return tuple(sites)

    def _context(self, data: int, slot: int) -> CodegenContext:
        return data_context(self.program, self.plan, self.layout, self, data=data, slot=slot & _MASK)

    @property
    def kernel(self) -> KernelServices:
        """What the guest's kernel has; without ``services`` only what reading memory takes."""
        if not self.services:
            return KernelServices(load=LOADS, preempt_count=PREEMPT_COUNT)
        return replace(kernel_services(), syscalls=self.entry)

    @property
    def bound(self) -> int:
        """What the engine would have allocated for the code before it knew any address."""
        rough = self._context(1 << 62, 1 << 40)
        return code_size(self.program, self.sites, plan_stubs(self.program, self.sites, rough), rough, TEXT)
