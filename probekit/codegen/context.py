"""The facts that generated code depends on, and the frame that a thunk builds.

Registers inside a thunk: ``rbx`` this CPU's block, ``rbp`` the saved registers,
``rsp`` the frame; everything that was saved is scratch.

    rbp +0 rbp  +8 rbx  +16 rdi +24 rsi +32 rdx +40 rcx +48 rax
        +56 rflags  +64 return to the stub  +72 site number  +80 the probed function's own stack
        -8 r8  -16 r9  -24 r10  -32 r11      as many of them as the clauses need
"""

from __future__ import annotations

from dataclasses import dataclass, field

from probekit.buffers.aggs import AggPlan
from probekit.buffers.layout import BlockLayout, DenseStore, TableStore
from probekit.buffers.variables import Scratch
from probekit.codegen.demand import Demand
from probekit.codegen.storage import Storage
from probekit.guest.offsets import KernelServices, TaskOffsets
from probekit.ir.ops import Program

__all__ = (
    "MAX_ERRNO",
    "SITE_ENTRY_SIZE",
    "SITE_FIELDS",
    "Context",
)


MAX_ERRNO = 4095
"""Values from minus this to -1 are errors (include/linux/err.h)."""

SITE_ENTRY_SIZE = 32
SITE_FIELDS = {"offset": 0, "id": 4, "probeprov": 8, "probemod": 12, "probefunc": 16, "probename": 20, "call": 24}
"""Byte offsets of the u32 fields in a site table entry; the names hold offsets into the string pool."""


@dataclass(frozen=True, slots=True)
class Context:
    """One enabling on one guest. Addresses are guest virtual; ``slot`` is a per-CPU offset from the GS base.

    ``activity``: address of the u64 that silences every thunk when it is not 0.
    ``storage``: where variables are, from ``activity`` on. ``sites``/``strings``: site table and string pool.
    ``constants``: offset in the pool of each constant string. ``ladders``: address of the bounds of each
    ``llquantize()``, by aggregation. ``addresses``: of the row of site addresses.
    ``preemptible``: a task may lose its CPU between two instructions of a stub, so shared words need ``lock``.
    ``task``: None without types; clauses that need it are refused. ``clock``: ``ktime_get_mono_fast_ns`` or None.
    ``tsc_khz``: ticks a millisecond of a time stamp counter that is the same on every CPU, 0 where it is not.
    ``tsc_rate``: the same of the counter that each CPU has, 0 where it is not known.
    ``longest_sample``: ticks that a clause can have taken where its time is measured.
    """

    layout: BlockLayout
    program: Program
    storage: Storage
    slot: int
    activity: int
    sites: int
    strings: int
    constants: dict[bytes, int]
    ladders: dict[int, int]
    preemptible: bool
    task: TaskOffsets | None
    clock: int | None
    demand: Demand
    tsc_khz: int = 0
    tsc_rate: int = 0
    longest_sample: int = 0
    addresses: int = 0
    kernel: KernelServices = field(default_factory=KernelServices)

    @property
    def aggregations(self) -> tuple[AggPlan, ...]:
        """Of the program."""
        return self.program.aggregations

    @property
    def scratch(self) -> Scratch:
        """A firing's working memory; its offsets count from its start."""
        return self.storage.scratch

    @property
    def services(self) -> bool:
        """Clauses call into the kernel, or may take page faults there."""
        return self.demand.services

    def in_scratch(self, offset: int) -> str:
        """The operand of a place in the scratch memory, without its size."""
        return f"[rbx + {self.layout.scratch_offset + offset:#x}]"

    def store(self, agg: int) -> DenseStore | TableStore:
        """Where an aggregation's values are in the block."""
        return self.layout.stores[agg]
