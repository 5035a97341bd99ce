"""What our INT3 sites need of a Linux guest: a place on its chain of die notifiers, and one for our exception table.

    die notifier   register_die_notifier(block); the block is ours, its function takes the traps of our sites
    bpf symbol     bpf_ksym_add(symbol); the kernel looks a faulting address up in its own exception table, in those
                   of its modules, and in those of the code that BPF has compiled (``search_bpf_extables``, kernel
                   commit 3dec541b2e63, v5.5): a symbol of that kind makes our copies a part of the last

Both are lists of the kernel's that are made to be added to and taken from while it runs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from probekit.guest.safepoint import SafePoint
from probekit.records import record

__all__ = (
    "EXTABLE_ENTRY",
    "UNHOOK",
    "Fixup",
    "HookKind",
    "HookServices",
    "KsymLayout",
    "NotifierLayout",
    "TrapFacts",
    "die_block",
    "exception_table",
    "find_hooks",
    "ksym_block",
)

HookKind = Literal["die_notifier", "bpf_ksym"]

UNHOOK = "unhook"
"""First word of the purpose of the call that takes one off, before its kind and address: for recovery."""

_FUNCTIONS: Mapping[HookKind, tuple[str, str]] = {
    "die_notifier": ("register_die_notifier", "unregister_die_notifier"),
    "bpf_ksym": ("bpf_ksym_add", "bpf_ksym_del"),
}
EXTABLE_ENTRY = struct.Struct("<iiI")  # struct exception_table_entry: two offsets from themselves, the kind of fix-up
_FIRST = (1 << 31) - 1  # the highest priority: nobody sees the trap before us that was not there before
_NAME = b"probekit"


@record
class NotifierLayout:
    """Byte offsets in ``struct notifier_block``, and its size."""

    call: int
    following: int
    priority: int
    size: int


@record
class KsymLayout:
    """Byte offsets in ``struct bpf_prog_aux`` (``ksym``: of the symbol in it), its size, and those of ``bpf_prog``."""

    ksym: int
    start: int
    end: int
    name: int
    links: int
    is_prog: int
    prog: int
    entries: int
    table: int
    aux_size: int
    prog_aux: int
    prog_size: int

    @property
    def size(self) -> int:
        """Bytes of both."""
        return self.aux_size + self.prog_size


@record
class Fixup:
    """An exception-table entry. ``target``: where a fault goes on; ``kind``: the kernel's word for the handler."""

    target: int
    kind: int


@record
class TrapFacts:
    """How INT3 is taken in this guest.

    ``int3``: the event's number (``DIE_INT3``). ``regs``: byte offset in ``die_args``; ``ip``, ``cs``: in ``pt_regs``.
    ``chain``: address of the chain's first pointer, or None where it has no symbol. ``ksym``: None where the kernel
    takes no exception table of ours. ``fixups``: the kernel's own entries, by the instruction's address.
    """

    int3: int
    regs: int
    ip: int
    cs: int
    block: NotifierLayout
    chain: int | None
    ksym: KsymLayout | None
    fixups: Mapping[int, Fixup]


@record
class HookServices:
    """Addresses of the kernel's functions: ``(add, remove)`` for each kind that it has; ``wait``: synchronize_rcu."""

    functions: Mapping[str, tuple[int, int]]
    wait: int | None

    def add(self, point: SafePoint, kind: str, addr: int) -> None:
        """Put our structure at ``addr`` on the kernel's list. The log has it as registered before this."""
        point.call(self.functions[kind][0], addr, purpose=f"hook {kind} {addr:#x}")

    def remove(self, point: SafePoint, kind: str, addr: int) -> None:
        """Take it off, once. One that was never added is left as it is. :meth:`settle` comes before its memory goes."""
        point.call(self.functions[kind][1], addr, purpose=f"{UNHOOK} {kind} {addr:#x}")

    def settle(self, point: SafePoint) -> None:
        """Wait for those who still walk the lists."""
        if self.wait is not None:
            point.call(self.wait)


def find_hooks(find: Callable[[str], int | None]) -> HookServices:
    """Look the functions up by name."""
    found: dict[str, tuple[int, int]] = {}
    for kind, (add, remove) in _FUNCTIONS.items():
        first, second = find(add), find(remove)
        if first is not None and second is not None:
            found[kind] = (first, second)
    return HookServices(found, find("synchronize_rcu"))


def die_block(layout: NotifierLayout, function: int) -> bytes:
    """A ``struct notifier_block`` whose function stands at ``function``."""
    block = bytearray(layout.size)
    struct.pack_into("<Q", block, layout.call, function)
    struct.pack_into("<i", block, layout.priority, _FIRST)
    return bytes(block)


def ksym_block(layout: KsymLayout, addr: int, *, start: int, end: int, table: int, entries: int) -> bytes:
    """A ``struct bpf_prog_aux`` for ``addr`` and the ``struct bpf_prog`` behind it, for code at ``start..end``.

    ``table``, ``entries``: where our exception table is, sorted by address, and how many entries it has.
    """
    block = bytearray(layout.size)
    links = layout.ksym + layout.links
    prog = addr + layout.aux_size
    words = {
        layout.ksym + layout.start: start,
        layout.ksym + layout.end: end,
        links: addr + links,  # an empty list: the symbol is on none yet
        links + 8: addr + links,
        layout.prog: prog,
        layout.table: table,
        layout.aux_size + layout.prog_aux: addr,
    }
    for offset, word in words.items():
        struct.pack_into("<Q", block, offset, word)
    struct.pack_into("<I", block, layout.entries, entries)
    name = layout.ksym + layout.name
    block[name : name + len(_NAME)] = _NAME
    block[layout.ksym + layout.is_prog] = 1
    return bytes(block)


def exception_table(copies: Sequence[tuple[int, Fixup]], addr: int) -> bytes:
    """The table for ``addr``. ``copies``: ``(address, fix-up)`` of our copied instructions; all within 2 GiB of it."""
    table = b""
    for copy, fixup in sorted(copies, key=lambda item: item[0]):
        at = addr + len(table)
        table += EXTABLE_ENTRY.pack(copy - at, fixup.target - at - 4, fixup.kind)
    return table
