"""Find a system call's arguments, and the system call that a task is in.

The function of a system call gets the registers of user space as they were saved at the kernel's entry
(``struct pt_regs``; commit fa697140f9a2, v4.17), not the arguments themselves. They are the last thing on the task's
stack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from probekit.errors import SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.symbols import SymbolTable

__all__ = ("CALL_NUMBER", "SYSCALL_ARGS", "SyscallEntry", "find_syscall_entry", "syscall_numbers")

SYSCALL_ARGS = (112, 104, 96, 56, 72, 64)
"""Byte offsets in ``struct pt_regs`` of rdi, rsi, rdx, r10, r8 and r9 (arch/x86/include/uapi/asm/ptrace.h)."""

CALL_NUMBER = 120 - 168
"""The offset of ``orig_ax`` from the top of the task's stack, in bytes."""

_MAX_SYSCALLS = 1024
_DISPATCHERS = ("do_syscall_64", "x64_sys_call")  # the latter since commit 1e3ad78334a6, v6.9, and where backported


@dataclass(frozen=True, slots=True)
class SyscallEntry:
    """How the kernel enters a system call."""

    callers: tuple[tuple[int, int], ...] = field(default=())
    """``(start, end)`` of the functions that call a system call's function."""
    stack_top: int | None = None
    """Offset from the GS base of the word that says where the running task's stack ends; None where not known."""


def find_syscall_entry(symbols: SymbolTable, btf: Btf | None) -> SyscallEntry:
    """Find the entry of system calls.

    The stack's top is a per-CPU variable, or in ``pcpu_hot`` (commit c063a217bc07, v6.2).
    """
    found = (symbols.lookup(addr) for name in _DISPATCHERS if (addr := symbols.addr(name)) is not None)
    callers = tuple((hit[0].addr, hit[0].end) for hit in found if hit is not None)
    top = symbols.addr("cpu_current_top_of_stack")
    hot = symbols.addr("pcpu_hot")
    if top is None and hot is not None and btf is not None:
        try:
            top = hot + btf.struct("pcpu_hot").field("top_of_stack").offset
        except SymbolError:
            top = None
    return SyscallEntry(callers, top)


def syscall_numbers(symbols: SymbolTable, read: Callable[[int, int], bytes]) -> Mapping[int, int]:
    """Return the number of each system call by its function's address; empty without ``sys_call_table``.

    ``read``: reads kernel memory at (address, size).
    """
    table = symbols.addr("sys_call_table")
    found = symbols.lookup(table) if table is not None else None
    if table is None or found is None:
        return {}
    data = read(table, min(found[0].size, _MAX_SYSCALLS * 8) // 8 * 8)
    numbers: dict[int, int] = {}
    for number in range(len(data) // 8):
        numbers.setdefault(int.from_bytes(data[8 * number : 8 * number + 8], "little"), number)
    return numbers
