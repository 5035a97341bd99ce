"""Find the functions that are refused because no trap is allowed in them, by the kernel's own records.

INT3 and instruction probes are refused there; :mod:`probekit.patch.refused_text` looks addresses up. The linker's
section bounds and the kernel's own lists say which functions these are. The section
``__start_kprobe_blacklist`` is freed after boot with the rest of ``.init``, so the list that the kernel made of it at
boot is read instead (``kprobe_blacklist``).
"""

from __future__ import annotations

from probekit.errors import SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.linked_list import walk_list
from probekit.kernel.memory import KernelMemory
from probekit.kernel.symbols import SymbolTable
from probekit.records import record

__all__ = ("Exclusion", "boundary_exclusions", "kprobe_blacklist")

_MAX_BLACKLIST = 1 << 16

_SECTIONS: tuple[tuple[str, str, str], ...] = (
    ("__noinstr_text_start", "__noinstr_text_end", "noinstr: runs where no trap is allowed"),
    ("__entry_text_start", "__entry_text_end", "entry code: the kernel's stack and GS base are not set yet"),
    ("__kprobes_text_start", "__kprobes_text_end", "the kernel's own probe machinery"),
    ("__static_call_text_start", "__static_call_text_end", "static call trampoline: the kernel rewrites it"),
    ("__indirect_thunk_start", "__indirect_thunk_end", "retpoline thunk"),
    ("_sinittext", "_einittext", "boot code: its memory is freed"),
    # exit sections of built-in code are dropped with .init (arch/x86/kernel/vmlinux.lds.S).
    ("__exittext_begin", "__exittext_end", "exit code: its memory is freed"),
)
_SYMBOLS: tuple[tuple[str, str], ...] = (
    *((name, "return thunk: every function returns through it") for name in (
        "__x86_return_thunk", "srso_return_thunk", "srso_alias_return_thunk", "srso_untrain_ret",
        "srso_alias_untrain_ret", "retbleed_return_thunk", "retbleed_untrain_ret", "call_depth_return_thunk",
        "entry_untrain_ret", "its_return_thunk", "zen_untrain_ret", "__ret",
    )),
    *((name, "boot and CPU start-up code (.head.text)") for name in (
        "startup_64", "secondary_startup_64", "secondary_startup_64_no_verify", "verify_cpu", "sev_verify_cbit",
        "start_cpu0", "__startup_64", "__startup_secondary_64", "startup_64_setup_env", "startup_64_setup_gdt_idt",
        "early_setup_idt", "soft_restart_cpu", "vc_boot_ghcb", "vc_no_ghcb",
    )),
    *((name, "ftrace trampoline template: the kernel copies it") for name in (
        "ftrace_caller", "ftrace_regs_caller", "ftrace_stub", "ftrace_graph_caller", "return_to_handler", "__fentry__",
        "ftrace_stub_direct_tramp", "ftrace_call", "ftrace_regs_call",
    )),
    ("__switch_to_asm", "switches stacks"),
    ("__switch_to", "runs between two tasks' stacks"),
    ("ret_from_fork", "first return of a new task: no caller"),
    ("ret_from_fork_asm", "first return of a new task: no caller"),
)  # fmt: skip


@record
class Exclusion:
    """A range of text in which no trap is allowed."""

    start: int
    """Its first address."""
    end: int
    """The address after the last byte."""
    reason: str
    """Why no trap is allowed there, in one line for the user."""


def boundary_exclusions(symbols: SymbolTable) -> list[Exclusion]:
    """Return the ranges that the symbols alone show: whole sections, and functions by name."""
    found = []
    for start, end, reason in _SECTIONS:
        bounds = symbols.range(start, end)
        if bounds is not None and bounds[0] < bounds[1]:
            found.append(Exclusion(*bounds, reason))
    for name, reason in _SYMBOLS:
        found += [Exclusion(symbol.addr, symbol.end, reason) for symbol in symbols.find(name, "") if symbol.is_text]
    return found


def kprobe_blacklist(memory: KernelMemory, symbols: SymbolTable, btf: Btf | None) -> list[Exclusion]:
    """Return the functions marked NOKPROBE_SYMBOL, from the kernel's list (commit 376e242429bf, v3.16).

    Empty where the kernel has no such list or no types. Raises :class:`SymbolError` for a list that makes no sense.
    """
    head = symbols.addr("kprobe_blacklist")
    entry = btf.find_struct("kprobe_blacklist_entry") if btf is not None else None
    if head is None or entry is None:
        return []
    link, start, end = (entry.field(name).offset for name in ("list", "start_addr", "end_addr"))
    links = walk_list(memory, head, _MAX_BLACKLIST)
    blobs = memory.read_many([(at - link, entry.size) for at in links])
    found = []
    for blob in blobs:
        if blob is None:
            raise SymbolError("the kernel's probe blacklist leads to unreadable memory")
        low = int.from_bytes(blob[start : start + 8], "little")
        high = int.from_bytes(blob[end : end + 8], "little")
        if low < high:
            found.append(Exclusion(low, high, "the kernel forbids probes here (NOKPROBE)"))
    return found
