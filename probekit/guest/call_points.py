"""Find places in a Linux kernel where a function may be called from outside.

A *safe point* is the entry of a function that always runs in process context,
with interrupts on, without a lock and where it may sleep: system calls, and the
work functions that the kernel runs by itself even in an idle guest. All of
them begin with ``endbr64``, with what a kernel puts in its place, or with the 5-byte
nop, so that a task which only passes by can be moved past the breakpoint by changing
its instruction pointer alone.

A called function returns to the *landing*: two bytes ``eb fe`` somewhere in
kernel text, which the processor executes as ``jmp .`` whatever instruction they are
part of. We set a breakpoint there, and no other task executes these bytes as an
instruction. If this process is killed and the breakpoint is gone, the borrowed task
loops at the landing and does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from probekit.errors import GuestError

__all__ = (
    "CANDIDATE_NAMES",
    "LANDING",
    "PADS",
    "CallPoints",
    "find_landings",
    "safe_point_candidates",
    "unchanged_landing",
)

LANDING = b"\xeb\xfe"  # jmp .
"""The bytes at which a called function returns to us."""

_CHUNK = 256 << 10  # bytes read at once; so much text has about four such pairs by chance
_MAX_LANDINGS = 8

PADS = {
    b"\xf3\x0f\x1e\xfa": 4,  # endbr64
    # nop word ptr [rax]: instead of endbr64 where a kernel with IBT calls the function directly only
    # (gen_endbr_poison() in arch/x86/include/asm/ibt.h)
    b"\x66\x0f\x1f\x00": 4,
    b"\x0f\x1f\x44\x00\x00": 5,  # nop dword ptr [rax + rax]
}
"""The first bytes of a function that a task may skip, with their number."""

_SYSCALLS = (
    "read write open openat close newfstat newstat statx newfstatat lseek mmap munmap mprotect brk ioctl poll ppoll "
    "select pselect6 epoll_wait epoll_pwait futex nanosleep clock_nanosleep getpid getppid gettid getuid getgid "
    "sched_yield wait4 exit_group pipe2 pread64 pwrite64 readv writev sendto recvfrom sendmsg recvmsg accept4 "
    "rt_sigaction rt_sigprocmask rt_sigreturn getdents64 access faccessat2 fcntl dup2 kill clock_gettime getrandom "
    "epoll_ctl socket connect umask times sysinfo uname set_tid_address getcwd chdir unlink madvise clone execve"
).split()

_WORKERS = (
    # Work functions of kworkers: process context, no lock held. vmstat's runs about once a second.
    "vmstat_shepherd",
    "vmstat_update",
    "wb_workfn",
    "neigh_managed_work",
    "neigh_periodic_work",
    "flush_to_ldisc",
    "psi_avgs_work",
    "kfree_rcu_monitor",
    "blk_mq_run_work_fn",
    "disk_events_workfn",
    "check_lifetime",
    "sync_hw_clock",
    "clocksource_watchdog_work",
    "lru_add_drain_per_cpu",
    "delayed_fput",
    # The kernel thread that compacts memory looks at each zone twice a second, without a lock (fragmentation_score_zone
    # since kernel commit facdaa917c4d, v5.9). Nobody else comes here but a write to a sysctl.
    "extfrag_for_order",
)

CANDIDATE_NAMES: tuple[str, ...] = (
    "x64_sys_call",  # one entry for all system calls since kernel commit 1e3ad78334a6 (v6.9)
    *(f"__x64_sys_{name}" for name in _SYSCALLS),
    *_WORKERS,
)


@dataclass(frozen=True, slots=True)
class CallPoints:
    """Lists where guest functions may be called, and where they return to us."""

    candidates: Mapping[int, int]
    """The length in bytes of the pad at each safe point, by the safe point's address."""
    landings: tuple[int, ...]
    """Addresses of landings. There are several, because a probe may change the bytes of one."""


def find_landings(read: Callable[[int, int], bytes], start: int, end: int) -> tuple[int, ...]:
    """Find the first few landings in ``start..end`` of live text.

    ``read``: ``(addr, size)`` to exactly that many bytes. Returns at most 8 addresses, and none if there are none.
    """
    found: list[int] = []
    for at in range(start, end, _CHUNK):
        code = read(at, min(_CHUNK, end - at))
        offset = code.find(LANDING)
        while offset >= 0 and len(found) < _MAX_LANDINGS:
            found.append(at + offset)
            offset = code.find(LANDING, offset + 2)
        if len(found) >= _MAX_LANDINGS:
            break
    return tuple(found)


def unchanged_landing(
    read_many: Callable[[Sequence[tuple[int, int]]], list[bytes | None]], landings: Sequence[int]
) -> int:
    """Return the first landing whose bytes are unchanged; a probe may have changed others.

    ``read_many``: ``(addr, size)`` ranges of guest memory to bytes. Raises :class:`GuestError` when there is none.
    """
    found = read_many([(addr, len(LANDING)) for addr in landings])
    for addr, code in zip(landings, found, strict=True):
        if code == LANDING:
            return addr
    raise GuestError("every place in the kernel's text where a guest call could return to was changed")


def safe_point_candidates(
    find: Callable[[str], int | None], read_many: Callable[[Sequence[tuple[int, int]]], list[bytes | None]]
) -> dict[int, int]:
    """Find the safe points of this kernel. Returns the length of the pad in bytes, by the safe point's address.

    ``find``: symbol name to address; ``read_many``: ``(addr, size)`` ranges of guest memory to bytes. A function that
    does not begin with a known pad is left out: it may be traced already.
    """
    addrs = sorted({addr for name in CANDIDATE_NAMES if (addr := find(name)) is not None})
    found: dict[int, int] = {}
    for addr, code in zip(addrs, read_many([(addr, 5) for addr in addrs]), strict=True):
        for pad, size in PADS.items():
            if code is not None and code.startswith(pad):
                found[addr] = size
    return found
