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
    """Where a task's facts are: byte offsets in ``task_struct`` where nothing else is said."""

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
    """When the task began; None where the kernel has no such member."""
    cred: int | None = None
    """Pointer to ``struct cred``; None where the kernel has no such member."""
    uid: int | None = None
    """Offset in ``struct cred``."""
    gid: int | None = None
    """Offset in ``struct cred``."""


@record
class RunTime:
    """How long a task has been on a CPU, as the scheduler keeps it (kernel/sched/fair.c, ``update_curr``).

    The two clocks of a run queue differ by the time that interrupts had taken when it was brought up to date.
    """

    total: int
    """Offset in ``task_struct``: nanoseconds until the last account."""
    since: int
    """Offset in ``task_struct``: when the last account was, by the run queue's task clock."""
    clock: int
    """Offset of the run queue's clock from the GS base."""
    task_clock: int
    """Offset of the run queue's task clock from the GS base."""
    now: int
    """Address of ``sched_clock_cpu``, which the run queue's clock follows. Any context may call it."""
    lock: int
    """Offset of the word of the run queue's spin lock from the GS base; the word is 0 when nobody has the lock."""
    interrupts: tuple[int, int] | None = None
    """Offsets from the GS base of the time that interrupts took: now, and as the run queue knows it.

    None unless the kernel accounts it (CONFIG_IRQ_TIME_ACCOUNTING).
    """


@record
class PathOffsets:
    """Where the names of a task's directories and the words of its program are: byte offsets."""

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
    """Addresses of kernel functions that clauses may call. None, or no entry, says that the kernel lacks one."""

    load: Mapping[int, int] = field(default_factory=dict)
    """``__get_user_nocheck_N`` by size N in bytes (1, 2, 4, 8).

    It takes the address in rax and returns what is there in rdx with eax = 0, or eax is not 0 after a page fault. It
    changes nothing else, and no tracer sees it, as it is assembly without a pad.
    """
    start: int = 0xFFFF800000000000
    """The lowest canonical address of the kernel's half, which depends on the levels of its page tables."""
    user_copy: int | None = None
    """``copy_from_user_nofault``."""
    user_text: int | None = None
    """``strncpy_from_user_nofault``."""
    to_user: int | None = None
    """``copy_to_user_nofault``."""
    user_okay: int | None = None
    """``nmi_uaccess_okay``: whether the memory that is mapped is the task's own."""
    send_signal: int | None = None
    """``bpf_send_signal``."""
    panic: int | None = None
    """``panic``."""
    stack: int | None = None
    """``stack_trace_save_regs``."""
    wall: int | None = None
    """``ktime_get_real_fast_ns``."""
    preempt_count: int | None = None
    """Offset of the preemption count from the GS base. It says whether this is an NMI."""
    percpu_offset: int | None = None
    """Offset from the GS base of the word that holds the GS base's own offset (``this_cpu_off``)."""
    syscalls: SyscallEntry = field(default_factory=SyscallEntry)
    """Where system calls are called from."""
    run_time: RunTime | None = None
    """For ``vtimestamp``."""
    paths: PathOffsets | None = None
    """For ``cwd``, ``root`` and ``d_path()``."""
