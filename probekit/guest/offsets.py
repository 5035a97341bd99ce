"""Hold byte offsets in the guest kernel's structures, and the kernel functions that generated code calls.

:mod:`probekit.guest.find_facts` finds them.
"""

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
    """Byte offsets of a task's members, in ``task_struct`` unless the field says otherwise."""

    current: int
    """Offset of the pointer to the current task from the GS base."""
    cpu: int
    """Offset of the CPU's number from the GS base."""
    pid: int
    tgid: int
    comm: int
    parent: int | None = None
    """``real_parent``; None where the kernel has no such member."""
    start: int | None = None
    """``start_time``: when the task began; None where the kernel has no such member."""
    cred: int | None = None
    """Pointer to ``struct cred``; None where the kernel has no such member."""
    uid: int | None = None
    """Offset in ``struct cred``."""
    gid: int | None = None
    """Offset in ``struct cred``."""
    status: int | None = None
    """``thread_info.status``: how the task entered the kernel; None where the kernel has no such member."""


@record
class RunTime:
    """Where the scheduler keeps how long a task has been on a CPU (kernel/sched/fair.c, ``update_curr``).

    A run queue has two clocks. Its task clock is its clock less the time that interrupts had taken at its last update.
    """

    total: int
    """Offset in ``task_struct`` of ``se.sum_exec_runtime``: nanoseconds up to the last update."""
    since: int
    """Offset in ``task_struct`` of ``se.exec_start``: the run queue's task clock at the last update."""
    clock: int
    """Offset of the run queue's clock from the GS base."""
    task_clock: int
    """Offset of the run queue's task clock from the GS base."""
    now: int
    """Address of ``sched_clock_cpu``, from which the run queue's clock is set. Any context may call it."""
    lock: int
    """Offset of the word of the run queue's spin lock from the GS base; the word is 0 when nobody has the lock."""
    interrupts: tuple[int, int] | None = None
    """Offsets from the GS base of the time that interrupts took: until now, and until the run queue's last update.

    None unless the kernel accounts it (CONFIG_IRQ_TIME_ACCOUNTING).
    """


@record
class PathOffsets:
    """Byte offsets to the paths of a task's directories and to its program's arguments."""

    fs: int
    """In ``task_struct``."""
    memory: int
    """In ``task_struct``: ``mm``."""
    cwd: int
    """In ``fs_struct``: the path of the working directory."""
    root: int
    """In ``fs_struct``: the path of the root directory."""
    path_mount: int
    """In ``path``."""
    path_dentry: int
    """In ``path``."""
    mount: int
    """In ``struct mount``: the ``vfsmount`` inside it."""
    mount_root: int
    """In ``vfsmount``: the dentry of the mount's root."""
    mount_parent: int
    """From a ``vfsmount`` to the ``mnt_parent`` of the mount around it."""
    mountpoint: int
    """From a ``vfsmount`` to the ``mnt_mountpoint`` of the mount around it."""
    parent: int
    """In a dentry."""
    name: int
    """In a dentry: a pointer to the name."""
    name_size: int
    """In a dentry: bytes of the name."""
    hashed: int
    """In a dentry: a word that is 0 when the dentry has been removed."""
    arg_start: int
    """In ``mm_struct``."""
    arg_end: int
    """In ``mm_struct``."""


@dataclass(frozen=True, slots=True)
class KernelServices:
    """Addresses of kernel functions that clauses may call. None, or no entry, where the kernel lacks the function."""

    load: Mapping[int, int] = field(default_factory=dict)
    """``__get_user_nocheck_N`` by size N in bytes (1, 2, 4, 8).

    It takes an address in rax. It returns eax = 0 and the value in rdx, or eax not 0 after a page fault, and changes no
    other register. It is assembly without a pad, so no tracer is called from it.
    """
    start: int = 0xFFFF800000000000
    """The lowest canonical address of the kernel's half, which depends on the levels of the page tables."""
    user_copy: int | None = None
    """``copy_from_user_nofault``."""
    user_text: int | None = None
    """``strncpy_from_user_nofault``."""
    to_user: int | None = None
    """``copy_to_user_nofault``."""
    user_okay: int | None = None
    """``nmi_uaccess_okay``: tells whether the page tables in use are the current task's own."""
    send_signal: int | None = None
    """``bpf_send_signal``."""
    panic: int | None = None
    """``panic``."""
    stack: int | None = None
    """``stack_trace_save_regs``."""
    wall: int | None = None
    """``ktime_get_real_fast_ns``."""
    preempt_count: int | None = None
    """Offset of the preemption count from the GS base. Its bits tell whether the CPU is in an NMI."""
    percpu_offset: int | None = None
    """Offset from the GS base of ``this_cpu_off``, which holds the GS base itself."""
    syscalls: SyscallEntry = field(default_factory=SyscallEntry)
    """How the kernel enters a system call."""
    run_time: RunTime | None = None
    """Offsets for ``vtimestamp``."""
    paths: PathOffsets | None = None
    """Offsets for ``cwd``, ``root`` and ``d_path()``."""
