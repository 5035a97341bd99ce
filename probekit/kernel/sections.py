"""Text that must not be touched, or only with care, as the kernel itself records it.

The linker's section bounds and the kernel's own tables say which code runs
where no trap is allowed, which code the kernel rewrites by itself, and which
instructions may fault with a fix-up. Tables of the ``.init`` part
(``__start_mcount_loc``, ``__start_kprobe_blacklist``) are freed after boot,
so the lists made from them at boot are read instead (``ftrace_pages_start``,
``kprobe_blacklist``).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from probekit.errors import SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.memory import Memory
from probekit.kernel.modules import Module, walk_list
from probekit.kernel.symbols import SymbolTable
from probekit.kernel.types import StructType
from probekit.records import record

__all__ = (
    "Exclusion",
    "JumpSite",
    "boundary_exclusions",
    "ftrace_sites",
    "kprobe_blacklist",
    "relative_sites",
    "table",
)

_MAX_BLACKLIST = 1 << 16
_MAX_ENTRIES = 1 << 20
_MAX_FTRACE_PAGES = 1 << 16

_BOUNDS: tuple[tuple[str, str, str], ...] = (
    ("__noinstr_text_start", "__noinstr_text_end", "noinstr: runs where no trap is allowed"),
    ("__entry_text_start", "__entry_text_end", "entry code: no stack or GS of the kernel's yet"),
    ("__kprobes_text_start", "__kprobes_text_end", "the kernel's own probe machinery"),
    ("__static_call_text_start", "__static_call_text_end", "static call trampoline: the kernel rewrites it"),
    ("__indirect_thunk_start", "__indirect_thunk_end", "retpoline thunk"),
    ("_sinittext", "_einittext", "boot code: its memory is freed"),
    # exit sections of built-in code are dropped with .init (arch/x86/kernel/vmlinux.lds.S).
    ("__exittext_begin", "__exittext_end", "exit code: its memory is freed"),
)
_SINGLE: tuple[tuple[str, str], ...] = (
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
    """``start..end`` must not be probed, because of ``reason`` (one line for the user)."""

    start: int
    end: int
    reason: str


@record
class JumpSite:
    """An instruction that the kernel rewrites while it runs. ``kind``: ``static_key`` or ``static_call``."""

    addr: int
    kind: str


def boundary_exclusions(symbols: SymbolTable) -> list[Exclusion]:
    """Exclusions that symbols alone tell."""
    found = []
    for start, end, reason in _BOUNDS:
        bounds = symbols.range(start, end)
        if bounds is not None and bounds[0] < bounds[1]:
            found.append(Exclusion(*bounds, reason))
    for name, reason in _SINGLE:
        found += [Exclusion(symbol.addr, symbol.end, reason) for symbol in symbols.find(name, "") if symbol.is_text]
    return found


def kprobe_blacklist(memory: Memory, symbols: SymbolTable, btf: Btf | None) -> list[Exclusion]:
    """Functions marked NOKPROBE_SYMBOL, from the kernel's list (commit 376e242429bf, v3.16)."""
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


def relative_sites(data: bytes, start: int, entry_size: int) -> list[int]:
    """Addresses of tables whose entries begin with a 32-bit offset from themselves.

    ``__ex_table``: 12 bytes (commit 548acf19234d, v4.6); ``__jump_table``: 16 (commit 50ff18ab497a, v4.20);
    static call sites: 8 (commit 9183c3f9ed71, v5.10).
    """
    words = array("i", data[: len(data) // entry_size * entry_size])
    step = entry_size // 4
    return [start + 4 * at + words[at] & (1 << 64) - 1 for at in range(0, len(words), step)]


def relative_pairs(data: bytes, start: int, entry_size: int) -> list[tuple[int, int]]:
    """Where control comes from and where it may go: the first two words of each entry of the same tables."""
    words = array("i", data[: len(data) // entry_size * entry_size])
    step = entry_size // 4
    mask = (1 << 64) - 1
    return [
        (start + 4 * at + words[at] & mask, start + 4 * at + 4 + words[at + 1] & mask)
        for at in range(0, len(words), step)
    ]


def table(
    memory: Memory,
    symbols: SymbolTable,
    modules: Iterable[Module],
    btf: Btf | None,
    *,
    bounds: tuple[str, str],
    members: tuple[str, str],
    entry_size: int,
) -> list[tuple[int, bytes]]:
    """``(address, bytes)`` of one table's parts: the kernel's (between ``bounds``), the modules' (pointer, count)."""
    found: list[tuple[int, bytes]] = []
    kernel = symbols.range(*bounds)
    if kernel is not None:
        if (kernel[1] - kernel[0]) // entry_size > _MAX_ENTRIES:
            raise SymbolError(f"the table at {bounds[0]} is implausibly long")
        found.append((kernel[0], memory.read(kernel[0], kernel[1] - kernel[0])))
    layout = btf.find_struct("module") if btf is not None else None
    pointer = layout.find_field(members[0]) if layout is not None else None
    count = layout.find_field(members[1]) if layout is not None else None
    if pointer is not None and count is not None:
        for module in modules:
            at = int.from_bytes(module.data[pointer.offset : pointer.offset + 8], "little")
            number = int.from_bytes(module.data[count.offset : count.offset + count.size], "little")
            if at and 0 < number <= _MAX_ENTRIES and module.state == "live":
                found.append((at, memory.read(at, number * entry_size)))
    return found


def ftrace_sites(memory: Memory, symbols: SymbolTable, btf: Btf | None) -> array[int]:
    """Addresses of the patchable nops at function entries, sorted: ftrace's own records, modules included.

    ``struct ftrace_page`` lists ``struct dyn_ftrace``. Empty without ftrace.
    """
    head = symbols.addr("ftrace_pages_start")
    page: StructType | None = btf.find_struct("ftrace_page") if btf is not None else None
    if head is None or page is None or btf is None:
        return array("Q")
    record = btf.struct("dyn_ftrace")
    ip_at, step = record.field("ip").offset, record.size
    following, records, used = page.field("next"), page.field("records"), page.field("index")
    sites: list[int] = []
    seen: set[int] = set()
    at = memory.u64(head)
    while at:
        if at in seen or len(seen) >= _MAX_FTRACE_PAGES:
            raise SymbolError("the kernel's ftrace pages do not end")
        seen.add(at)
        blob = memory.read(at, page.size)
        count = int.from_bytes(blob[used.offset : used.offset + used.size], "little")
        start = int.from_bytes(blob[records.offset : records.offset + 8], "little")
        if not 0 <= count <= _MAX_ENTRIES or step % 8 or ip_at % 8:
            raise SymbolError(f"an ftrace page claims {count} records")
        words = array("Q", memory.read(start, count * step))
        sites += words[ip_at // 8 :: step // 8]
        at = int.from_bytes(blob[following.offset : following.offset + 8], "little")
    return array("Q", sorted(site for site in sites if site))
