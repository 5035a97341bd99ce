"""Find the functions of system calls, their numbers and arguments, and the system call that a task is in.

The function of a system call gets the registers of user space as they were saved at the kernel's entry
(``struct pt_regs``; commit fa697140f9a2, v4.17), not the arguments themselves. They are the last thing on the task's
stack. There are three ways in, each with functions and numbers of its own::

    64-bit   syscall                                    __x64_sys_read
    32-bit   int 0x80, sysenter, syscall in a 32-bit    __ia32_sys_read, __ia32_compat_sys_open
             program
    x32      syscall with bit 30 in the number          __x64_sys_read, __x64_compat_sys_readv

A kernel leads from number to function by a table, or by a ``switch`` in a function (commit 1e3ad78334a6, v6.9, and
where backported), whose comparisons are followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from probekit.errors import SymbolError
from probekit.isa.follow import Follower
from probekit.kernel.btf import Btf
from probekit.kernel.symbols import SymbolTable

__all__ = (
    "ABI_NAMES",
    "CALL_NUMBER",
    "COMPAT_ARGS",
    "COMPAT_CALL",
    "SYSCALL_ARGS",
    "TS_COMPAT",
    "X32_BIT",
    "X32_MASK",
    "Abi",
    "CallFunction",
    "CallNumbers",
    "Dispatcher",
    "SyscallEntry",
    "call_function",
    "find_dispatchers",
    "find_syscall_entry",
    "is_compat",
    "syscall_numbers",
)

SYSCALL_ARGS = (112, 104, 96, 56, 72, 64)
"""Byte offsets in ``struct pt_regs`` of rdi, rsi, rdx, r10, r8 and r9 (arch/x86/include/uapi/asm/ptrace.h)."""

COMPAT_ARGS = (40, 88, 96, 104, 112, 32)
"""Byte offsets in ``struct pt_regs`` of ebx, ecx, edx, esi, edi and ebp, the arguments of a 32-bit program's call."""

CALL_NUMBER = 120 - 168
"""The offset of ``orig_ax`` from the top of the task's stack, in bytes."""

COMPAT_CALL = 1 << 31
"""Set in the number of a system call that was made by the 32-bit way in; the kernel's own numbers are smaller."""

X32_BIT = 1 << 30
"""Set by x32 programs in the number that they call; the numbers are those of 64-bit programs otherwise."""

X32_MASK = X32_BIT | 1 << 31
"""These bits of ``orig_ax`` are :data:`X32_BIT` in such a call. Outside of system calls it may be negative."""

TS_COMPAT = 2
"""Set in ``thread_info.status`` during a system call that was made by the 32-bit way in (asm/thread_info.h)."""

ABI_NAMES: dict[Abi, bytes] = {"64-bit": b"x86_64", "32-bit": b"i386", "x32": b"x32"}
"""The values of D's ``curabi``."""

_MAX_SYSCALLS = 1024
_GAP = 256  # after so many numbers that lead where every unknown number does, there are no more
_MAX_NUMBERS = 8  # of one function
_MAX_SWITCH = 1 << 16  # bytes of a function with a switch

Abi = Literal["64-bit", "32-bit", "x32"]
"""A way in, after the programs that use it."""

# The first prefix that fits. The names inside are those of SYSCALL_DEFINE and COMPAT_SYSCALL_DEFINE; x86 adds a prefix
# of its own to those that only its 32-bit programs need (arch/x86/kernel/sys_ia32.c).
_PREFIXES: tuple[tuple[str, Abi], ...] = (
    ("__x64_compat_sys_", "x32"),
    ("__x32_compat_sys_", "x32"),
    ("__x64_sys_", "64-bit"),
    ("__ia32_compat_sys_ia32_", "32-bit"),
    ("__ia32_compat_sys_x86_", "32-bit"),
    ("__ia32_compat_sys_", "32-bit"),
    ("__ia32_sys_ia32_", "32-bit"),
    ("__ia32_sys_x86_", "32-bit"),
    ("__ia32_sys_", "32-bit"),
)

_CALLERS = ("do_syscall_64", "x64_sys_call", "do_syscall_x32", "x32_sys_call")
_COMPAT_CALLERS = (
    *("ia32_sys_call", "do_int80_syscall_32", "do_int80_emulation", "int80_emulation", "do_syscall_32_irqs_on"),
    *("do_fast_syscall_32", "__do_fast_syscall_32", "do_SYSENTER_32"),
)


class CallFunction(NamedTuple):
    """A function of a system call, by its name."""

    call: str
    """The system call's name, such as ``read``."""
    abi: Abi
    """The programs that it serves."""


def call_function(name: str) -> CallFunction | None:
    """Return the system call whose function has this name; None for any other function."""
    if not name.startswith("__"):
        return None
    for prefix, abi in _PREFIXES:
        if name.startswith(prefix):
            return CallFunction(name.removeprefix(prefix), abi)
    return None


def is_compat(name: str) -> bool:
    """Return whether a function with this name serves system calls of 32-bit programs."""
    found = call_function(name)
    return found is not None and found.abi == "32-bit"


@dataclass(frozen=True, slots=True)
class SyscallEntry:
    """How the kernel enters a system call."""

    callers: tuple[tuple[int, int], ...] = field(default=())
    """``(start, end)`` of the functions that call a system call's function for 64-bit and x32 programs."""
    stack_top: int | None = None
    """Offset from the GS base of the word that says where the running task's stack ends; None where not known."""
    compat_callers: tuple[tuple[int, int], ...] = field(default=())
    """The same for 32-bit programs."""
    x32: bool = False
    """Whether the kernel serves x32 programs."""


def find_syscall_entry(symbols: SymbolTable, btf: Btf | None) -> SyscallEntry:
    """Find the entry of system calls.

    The stack's top is a per-CPU variable, or in ``pcpu_hot`` (commit c063a217bc07, v6.2).
    """
    top = symbols.addr("cpu_current_top_of_stack")
    hot = symbols.addr("pcpu_hot")
    if top is None and hot is not None and btf is not None:
        try:
            top = hot + btf.struct("pcpu_hot").field("top_of_stack").offset
        except SymbolError:
            top = None
    x32 = any(symbols.addr(name) is not None for name in _DISPATCHERS["x32"])
    return SyscallEntry(_ranges(symbols, _CALLERS), top, _ranges(symbols, _COMPAT_CALLERS), x32)


def _ranges(symbols: SymbolTable, names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    found = (symbols.lookup(addr) for name in names if (addr := symbols.addr(name)) is not None)
    return tuple((hit[0].addr, hit[0].end) for hit in found if hit is not None)


class Dispatcher(NamedTuple):
    """What leads from the number of a system call to its function."""

    abi: Abi
    addr: int
    size: int
    """Bytes."""
    table: bool
    """Whether it is a table of addresses; otherwise a function ``f(regs, number)`` with a ``switch``."""


_DISPATCHERS: dict[Abi, tuple[str, str]] = {
    "64-bit": ("sys_call_table", "x64_sys_call"),
    "32-bit": ("ia32_sys_call_table", "ia32_sys_call"),
    "x32": ("x32_sys_call_table", "x32_sys_call"),
}
"""The name of the table and of the function with the switch, for each way in."""


def find_dispatchers(symbols: SymbolTable) -> tuple[Dispatcher, ...]:
    """Find the dispatcher of each way in that the kernel has: its table, else its function."""
    found: list[Dispatcher] = []
    for abi, names in _DISPATCHERS.items():
        for name, most in zip(names, (8 * _MAX_SYSCALLS, _MAX_SWITCH), strict=True):
            addr = symbols.addr(name)
            hit = symbols.lookup(addr) if addr is not None else None
            if addr is not None and hit is not None:
                found.append(Dispatcher(abi, addr, min(hit[0].size, most), name == names[0]))
                break
    return tuple(found)


class CallNumbers(NamedTuple):
    """The numbers of system calls."""

    by_function: Mapping[int, tuple[int, ...]]
    """The numbers that lead to each function, by its address. Most functions have one.

    A number of the 32-bit way in has :data:`COMPAT_CALL` set; one of x32 lacks :data:`X32_BIT`. Of many numbers only
    the first ones are kept: those that the kernel does not have all lead to one function.
    """
    complete: frozenset[Abi]
    """The ways in all of whose functions are among them."""


def syscall_numbers(dispatchers: Sequence[Dispatcher], data: Sequence[bytes | None]) -> CallNumbers:
    """Find the numbers of all system calls. ``data``: the bytes of each dispatcher, None where they cannot be read."""
    numbers: dict[int, dict[int, None]] = {}
    complete: set[Abi] = set()
    for dispatcher, found in zip(dispatchers, data, strict=True):
        if found is None:
            continue
        leads = _leads(dispatcher, found)
        if None not in leads:
            complete.add(dispatcher.abi)
        flag = COMPAT_CALL if dispatcher.abi == "32-bit" else 0
        for number, addr in enumerate(leads):
            known = numbers.setdefault(addr, {}) if addr is not None else {}
            if len(known) < _MAX_NUMBERS:
                known[number | flag] = None
    return CallNumbers({addr: tuple(known) for addr, known in numbers.items()}, frozenset(complete))


def _leads(dispatcher: Dispatcher, data: bytes) -> list[int | None]:
    """Return the address that each number leads to, in order of the numbers; None where it is not known."""
    if dispatcher.table:
        return [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data) // 8 * 8, 8)]
    follower = Follower(data, dispatcher.addr)
    default = follower.leaves_to({"rsi": (1 << 32) - 1})
    leads: list[int | None] = []
    while len(leads) < _GAP or (len(leads) < _MAX_SYSCALLS and any(lead != default for lead in leads[-_GAP:])):
        leads.append(follower.leaves_to({"rsi": len(leads)}))
    return leads
