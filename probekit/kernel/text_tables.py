"""Read the tables in which the kernel records addresses of its own text.

They say which instructions may fault with a fix-up (``__ex_table``), which ones the kernel rewrites by itself
(``__jump_table`` of static keys, static call sites), and where ftrace's nops are. The section ``__start_mcount_loc`` is
freed after boot with the rest of ``.init``, so ftrace's own records, made of it at boot, are read instead
(``ftrace_pages_start``).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from probekit.errors import SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.memory import KernelMemory
from probekit.kernel.modules import Module
from probekit.kernel.symbols import SymbolTable
from probekit.records import record

__all__ = (
    "EXCEPTION_TABLE",
    "JUMP_TABLE",
    "STATIC_CALLS",
    "JumpSite",
    "TextTable",
    "ftrace_sites",
    "read_table",
    "relative_pairs",
    "relative_sites",
)

_MAX_ENTRIES = 1 << 20
_MAX_FTRACE_PAGES = 1 << 16
_MASK64 = (1 << 64) - 1


@record
class TextTable:
    """A table of the kernel and its modules whose entries begin with a 32-bit offset from themselves."""

    bounds: tuple[str, str]
    """The symbols at its start and end in the kernel."""
    members: tuple[str, str]
    """The members of ``struct module`` that hold a module's pointer and count."""
    entry_size: int
    """Bytes."""


EXCEPTION_TABLE = TextTable(("__start___ex_table", "__stop___ex_table"), ("extable", "num_exentries"), 12)
"""Instructions that may fault, with their fix-ups (commit 548acf19234d, v4.6)."""
JUMP_TABLE = TextTable(("__start___jump_table", "__stop___jump_table"), ("jump_entries", "num_jump_entries"), 16)
"""Jumps of static keys (commit 50ff18ab497a, v4.20)."""
STATIC_CALLS = TextTable(
    ("__start_static_call_sites", "__stop_static_call_sites"), ("static_call_sites", "num_static_call_sites"), 8
)
"""Static calls (commit 9183c3f9ed71, v5.10)."""


@record
class JumpSite:
    """An instruction that the kernel rewrites while it runs."""

    addr: int
    """Address of the instruction."""
    kind: str
    """``static_key`` or ``static_call``."""


def read_table(
    memory: KernelMemory, symbols: SymbolTable, modules: Iterable[Module], btf: Btf | None, table: TextTable
) -> list[tuple[int, bytes]]:
    """Return ``(address, bytes)`` of the kernel's part of a table and of each live module's.

    Raises :class:`SymbolError` for one that is implausibly long, :class:`~probekit.errors.MemoryAccessError`.
    """
    found: list[tuple[int, bytes]] = []
    kernel = symbols.range(*table.bounds)
    if kernel is not None:
        if (kernel[1] - kernel[0]) // table.entry_size > _MAX_ENTRIES:
            raise SymbolError(f"the table at {table.bounds[0]} is implausibly long")
        found.append((kernel[0], memory.read(kernel[0], kernel[1] - kernel[0])))
    layout = btf.find_struct("module") if btf is not None else None
    pointer = layout.find_field(table.members[0]) if layout is not None else None
    count = layout.find_field(table.members[1]) if layout is not None else None
    if pointer is not None and count is not None:
        for module in modules:
            at = int.from_bytes(module.data[pointer.offset : pointer.offset + 8], "little")
            number = int.from_bytes(module.data[count.offset : count.offset + count.size], "little")
            if at and 0 < number <= _MAX_ENTRIES and module.state == "live":
                found.append((at, memory.read(at, number * table.entry_size)))
    return found


def relative_sites(data: bytes, start: int, entry_size: int) -> list[int]:
    """Return the address in each entry of a table. ``start``: the address of ``data``; ``entry_size``: bytes."""
    words = array("i", data[: len(data) // entry_size * entry_size])
    step = entry_size // 4
    return [start + 4 * at + words[at] & _MASK64 for at in range(0, len(words), step)]


def relative_pairs(data: bytes, start: int, entry_size: int) -> list[tuple[int, int]]:
    """Return ``(from, to)`` of each entry of the same tables: where control comes from and where it may go."""
    words = array("i", data[: len(data) // entry_size * entry_size])
    step = entry_size // 4
    return [
        (start + 4 * at + words[at] & _MASK64, start + 4 * at + 4 + words[at + 1] & _MASK64)
        for at in range(0, len(words), step)
    ]


def ftrace_sites(memory: KernelMemory, symbols: SymbolTable, btf: Btf | None) -> array[int]:
    """Return the addresses of the patchable nops at function entries, sorted, modules included.

    ``struct ftrace_page`` lists ``struct dyn_ftrace``. Empty without ftrace or types.
    Raises :class:`SymbolError` for records that make no sense.
    """
    head = symbols.addr("ftrace_pages_start")
    page = btf.find_struct("ftrace_page") if btf is not None else None
    if head is None or page is None or btf is None:
        return array("Q")
    dyn_ftrace = btf.struct("dyn_ftrace")
    ip_at, step = dyn_ftrace.field("ip").offset, dyn_ftrace.size
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
