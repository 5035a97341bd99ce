"""The facts that generated code depends on, and the frame that a thunk builds.

Registers inside a thunk: ``rbx`` this CPU's block, ``rbp`` the saved registers,
``rsp`` the frame; everything that was saved is scratch.

    rbp +0 rbp  +8 rbx  +16 rdi +24 rsi +32 rdx +40 rcx +48 rax
        +56 rflags  +64 return to the stub  +72 site number  +80 the probed function's own stack
        -8 r8  -16 r9  -24 r10  -32 r11      as many of them as the clauses need
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from probekit.buffers.aggs import AggPlan
from probekit.buffers.layout import BlockLayout, DenseStore, TableStore
from probekit.buffers.variables import Scratch
from probekit.codegen.demand import Demand
from probekit.codegen.storage import Storage
from probekit.ir.ops import Program
from probekit.kernel.syscalls import SyscallEntry
from probekit.records import record

__all__ = (
    "ARG_FRAME",
    "FRAME_CALLER",
    "FRAME_FLAGS",
    "FRAME_RAX",
    "FRAME_SITE",
    "FRAME_STACK_ARGS",
    "MAX_ERRNO",
    "SAVED",
    "SAVED_MORE",
    "SITE_ENTRY_SIZE",
    "SITE_FIELDS",
    "Context",
    "KernelServices",
    "PathOffsets",
    "RunTime",
    "TaskOffsets",
)

SAVED = ("rax", "rcx", "rdx", "rsi", "rdi", "rbx", "rbp")
"""Pushed in this order behind the flags."""

SAVED_MORE = ("r8", "r9", "r10", "r11")
"""Pushed below ``rbp``, the first so many as something uses."""

ARG_FRAME = (16, 24, 32, 40, -8, -16)
"""rbp offsets of the System V argument registers rdi rsi rdx rcx r8 r9."""

FRAME_RAX = 48
FRAME_FLAGS = 56
FRAME_SITE = 72
FRAME_CALLER = 80
"""rbp offset of the probed function's return address, at its entry and where it returns."""

FRAME_STACK_ARGS = 88
"""rbp offset of the seventh argument at a function's entry: behind the return address at +80."""

MAX_ERRNO = 4095
"""Values from minus this to -1 are errors (include/linux/err.h)."""

SITE_ENTRY_SIZE = 32
SITE_FIELDS = {"offset": 0, "id": 4, "probeprov": 8, "probemod": 12, "probefunc": 16, "probename": 20, "call": 24}
"""Byte offsets of the u32 fields in a site table entry; the names hold offsets into the string pool."""


@record
class TaskOffsets:
    """Where a task's facts are: byte offsets in ``task_struct``, and two per-CPU offsets from the GS base.

    ``parent``: ``real_parent``; ``start``: when the task began; ``cred``, and in it ``uid`` and ``gid``. None where
    the kernel has no such thing.
    """

    current: int
    cpu: int
    pid: int
    tgid: int
    comm: int
    parent: int | None = None
    start: int | None = None
    cred: int | None = None
    uid: int | None = None
    gid: int | None = None


@record
class RunTime:
    """How long a task has been on a CPU, as the scheduler keeps it (kernel/sched/fair.c, ``update_curr``).

    ``total``, ``since``: in ``task_struct``, nanoseconds until its last account, and when that was by the run queue's
    task clock. ``clock``, ``task_clock``: of this CPU's run queue, from the GS base; they differ by the time that
    interrupts took until then. ``interrupts``: that time as it is now, and as the run queue knows it, where the kernel
    accounts it (CONFIG_IRQ_TIME_ACCOUNTING). ``now``: ``sched_clock_cpu``, which the run queue's clock follows; any
    context may call it. ``lock``: the word of the run queue's spin lock, 0 when nobody has it.
    """

    total: int
    since: int
    clock: int
    task_clock: int
    now: int
    lock: int
    interrupts: tuple[int, int] | None = None


@record
class PathOffsets:
    """Where the names of a task's directories and the words of its program are: byte offsets.

    ``fs``, ``memory``: in ``task_struct``; ``cwd``, ``root``: the paths in ``fs_struct``; ``path_mount``,
    ``path_dentry``: in ``path``. From a ``vfsmount``, which lies inside a ``struct mount`` at ``mount``:
    ``mount_root``, and of that mount ``mount_parent`` and ``mountpoint``. In a dentry: ``parent``, ``name`` (a pointer)
    and ``name_size``, and ``hashed``, 0 when it has been removed. ``arg_start``, ``arg_end``: in ``mm_struct``.
    """

    fs: int
    memory: int
    cwd: int
    root: int
    path_mount: int
    path_dentry: int
    mount: int
    mount_root: int
    mount_parent: int
    mountpoint: int
    parent: int
    name: int
    name_size: int
    hashed: int
    arg_start: int
    arg_end: int


@dataclass(frozen=True, slots=True)
class KernelServices:
    """Kernel functions that clauses may call, by address; None or missing where the kernel has them not.

    ``load``: by size in bytes, ``__get_user_nocheck_N``: rax = address; rdx = what is there and eax = 0, or eax is
    not 0 where a page fault came of it. Nothing else is touched, and no tracer sees it (assembly without a pad).
    ``start``: the lowest canonical address of the kernel's half, which depends on the levels of its page tables.
    ``user_copy``: ``copy_from_user_nofault``; ``user_text``: ``strncpy_from_user_nofault``;
    ``to_user``: ``copy_to_user_nofault``; ``user_okay``: ``nmi_uaccess_okay``, whether the memory that is mapped is the
    task's own; ``send_signal``: ``bpf_send_signal``; ``panic``: that function.
    ``stack``: ``stack_trace_save_regs``; ``wall``: ``ktime_get_real_fast_ns``;
    ``preempt_count``: offset of that word from the GS base, which says whether this is an NMI; ``percpu_offset``: of
    the word that is the GS base's own offset (``this_cpu_off``). ``syscalls``: where they are called from.
    ``run_time``: for ``vtimestamp``; ``paths``: for ``cwd`` and its like.
    """

    load: Mapping[int, int] = field(default_factory=dict)
    start: int = 0xFFFF800000000000
    user_copy: int | None = None
    user_text: int | None = None
    to_user: int | None = None
    user_okay: int | None = None
    send_signal: int | None = None
    panic: int | None = None
    stack: int | None = None
    wall: int | None = None
    preempt_count: int | None = None
    percpu_offset: int | None = None
    syscalls: SyscallEntry = field(default_factory=SyscallEntry)
    run_time: RunTime | None = None
    paths: PathOffsets | None = None


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
