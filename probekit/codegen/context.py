"""The facts that generated code depends on, and the frame that a thunk builds.

Registers inside a thunk: ``rbx`` this CPU's block, ``rbp`` the saved registers,
``rsp`` the frame; everything that was saved is scratch.

    rbp +0 rbp  +8 rbx  +16 rdi +24 rsi +32 rdx +40 rcx +48 rax
        +56 rflags  +64 return to the stub  +72 site number  +80 the probed function's own stack
        -8 r8  -16 r9  -24 r10  -32 r11      as many of them as the clauses need
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from probekit.buffers.aggs import AggPlan
from probekit.buffers.layout import BlockLayout, DenseStore, TableStore
from probekit.ir.ops import Variable

__all__ = (
    "ARG_FRAME",
    "FRAME_RAX",
    "FRAME_SITE",
    "FRAME_STACK_ARGS",
    "SAVED",
    "SAVED_MORE",
    "SITE_ENTRY_SIZE",
    "SITE_FIELDS",
    "Context",
    "ProbeKind",
    "TaskOffsets",
)

ProbeKind = Literal["entry", "return"]

SAVED = ("rax", "rcx", "rdx", "rsi", "rdi", "rbx", "rbp")
"""Pushed in this order behind the flags."""

SAVED_MORE = ("r8", "r9", "r10", "r11")
"""Pushed below ``rbp``, the first so many as something uses."""

ARG_FRAME = (16, 24, 32, 40, -8, -16)
"""rbp offsets of the System V argument registers rdi rsi rdx rcx r8 r9."""

FRAME_RAX = 48
FRAME_SITE = 72
FRAME_STACK_ARGS = 88
"""rbp offset of the seventh argument at a function's entry: behind the return address at +80."""

SITE_ENTRY_SIZE = 32
SITE_FIELDS = {"offset": 0, "id": 4, "probeprov": 8, "probemod": 12, "probefunc": 16, "probename": 20}
"""Byte offsets of the u32 fields in a site table entry; the names hold offsets into the string pool."""


@dataclass(frozen=True, slots=True)
class TaskOffsets:
    """Where a task's facts are: byte offsets in ``task_struct``, and two per-CPU offsets from the GS base."""

    current: int
    cpu: int
    pid: int
    tgid: int
    comm: int


@dataclass(frozen=True, slots=True)
class Context:
    """One enabling on one guest. Addresses are guest virtual; ``slot`` is a per-CPU offset from the GS base.

    ``activity``: address of the u64 that silences every thunk when it is not 0.
    ``variables``: address of the first global variable's 8 bytes. ``sites``/``strings``: site table and string pool.
    ``constants``: offset in the pool of each constant string.
    ``preemptible``: a task may lose its CPU between two instructions of a stub, so shared words need ``lock``.
    ``task``: None without types; clauses that need it are refused. ``clock``: ``ktime_get_mono_fast_ns`` or None.
    """

    layout: BlockLayout
    aggregations: tuple[AggPlan, ...]
    globals_: tuple[Variable, ...]
    slot: int
    activity: int
    variables: int
    sites: int
    strings: int
    constants: dict[bytes, int]
    preemptible: bool
    task: TaskOffsets | None
    clock: int | None

    def store(self, agg: int) -> DenseStore | TableStore:
        """Where an aggregation's values are in the block."""
        return self.layout.stores[agg]
