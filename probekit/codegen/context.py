"""Hold the facts that generated code depends on, and say which registers it may count on.

Registers inside a thunk: ``rbx`` this CPU's block, ``rbp`` the saved registers, ``rsp`` the frame
(:mod:`probekit.codegen.frame`). Everything that was saved is free to be changed.

    rbp +0 rbp  +8 rbx  +16 rdi +24 rsi +32 rdx +40 rcx +48 rax
        +56 rflags  +64 return to the stub  +72 site number  +80 the probed function's own stack
        -8 r8  -16 r9  -24 r10  -32 r11      as many of them as the clauses need
"""

from __future__ import annotations

from dataclasses import dataclass, field

from probekit.buffers.aggs import AggPlan
from probekit.buffers.layout import CpuBlockLayout, DenseStore, TableStore
from probekit.buffers.variables import ScratchLayout
from probekit.codegen.demand import Demand
from probekit.codegen.storage import Storage
from probekit.guest.offsets import KernelServices, TaskOffsets
from probekit.ir.ops import Program

__all__ = (
    "MAX_ERRNO",
    "SITE_ENTRY_SIZE",
    "SITE_FIELDS",
    "CodegenContext",
)


MAX_ERRNO = 4095
"""Values from minus this to -1 are errors (include/linux/err.h)."""

SITE_ENTRY_SIZE = 32
"""Bytes of an entry in the site table."""

SITE_FIELDS = {"offset": 0, "id": 4, "probeprov": 8, "probemod": 12, "probefunc": 16, "probename": 20, "call": 24}
"""Byte offsets of the u32 fields in a site table entry. A name's field holds an offset into the string pool."""


@dataclass(frozen=True, slots=True)
class CodegenContext:
    """What the code of one enabling on one guest depends on. Addresses are guest virtual."""

    layout: CpuBlockLayout
    """Where everything is in a CPU's block."""
    program: Program
    """The program that is compiled."""
    storage: Storage
    """Where variables are; offsets count from ``activity``."""
    percpu_slot: int
    """Offset from the GS base of the word that holds the address of this CPU's block; may be negative."""
    activity: int
    """Address of the u64 that silences every thunk when it is not 0: the first word of the data memory."""
    site_table: int
    """Address of the site table."""
    string_pool: int
    """Address of the string pool, which begins with an empty string."""
    pool_offsets: dict[bytes, int]
    """Offset in the pool of each constant string."""
    llquantize_bounds: dict[int, int]
    """Address of the bounds of each ``llquantize()``, by aggregation."""
    preemptible: bool
    """True when a task may lose its CPU between two instructions of a stub, so that shared words need ``lock``."""
    task: TaskOffsets | None
    """None without the kernel's types. Clauses that need it are refused."""
    clock: int | None
    """Address of ``ktime_get_mono_fast_ns``, or None."""
    demand: Demand
    """What the program's code needs at run time."""
    shared_tsc_khz: int = 0
    """Ticks a millisecond of a time stamp counter that is the same on every CPU; 0 where it is not."""
    tsc_khz: int = 0
    """Ticks a millisecond of each CPU's own time stamp counter; 0 where it is not known."""
    longest_sample: int = 0
    """Ticks that a clause can have taken where its time is measured."""
    site_addresses: int = 0
    """Address of the row of site addresses, a u64 each."""
    kernel: KernelServices = field(default_factory=KernelServices)
    """The kernel functions that code may call."""

    @property
    def aggregations(self) -> tuple[AggPlan, ...]:
        """The program's aggregations."""
        return self.program.aggregations

    @property
    def scratch(self) -> ScratchLayout:
        """A firing's scratch memory; its offsets count from its start."""
        return self.storage.scratch

    @property
    def services(self) -> bool:
        """True when clauses call into the kernel, or may take page faults there."""
        return self.demand.services

    def in_scratch(self, offset: int) -> str:
        """Return the memory operand of a place in the scratch memory, without its size."""
        return f"[rbx + {self.layout.scratch_offset + offset:#x}]"

    def store(self, agg: int) -> DenseStore | TableStore:
        """Return where an aggregation's values are in the block."""
        return self.layout.stores[agg]
