"""Byte offsets in the guest kernel's structures, and the kernel functions that generated code calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from probekit.kernel.syscalls import SyscallEntry
from probekit.records import record

__all__ = (
    "KernelServices",
    "PathOffsets",
    "RunTime",
    "TaskOffsets",
)


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
