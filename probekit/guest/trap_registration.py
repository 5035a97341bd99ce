"""Register the handler of our INT3 sites on the kernel's chain of die notifiers, and our exception table with it.

    die notifier   register_die_notifier(block); the block is ours, its function handles the traps of our sites
    bpf symbol     bpf_ksym_add(symbol); the kernel looks a faulting address up in its own exception table, in those
                   of its modules, and in those of the code that BPF has compiled (``search_bpf_extables``, kernel
                   commit 3dec541b2e63, v5.5): a symbol of that kind makes our copies look like such code

Both are lists of the kernel to which entries are added, and from which they are removed, while it runs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence

from probekit.guest.calls import AddListEntry, ListEntryKind, RemoveListEntry
from probekit.guest.safepoint import SafePoint
from probekit.records import record

__all__ = (
    "EXTABLE_ENTRY",
    "Fixup",
    "KsymLayout",
    "NotifierLayout",
    "TrapFacts",
    "TrapServices",
    "die_block",
    "exception_table",
    "find_trap_services",
    "ksym_block",
)

_FUNCTIONS: Mapping[ListEntryKind, tuple[str, str]] = {
    "die_notifier": ("register_die_notifier", "unregister_die_notifier"),
    "bpf_ksym": ("bpf_ksym_add", "bpf_ksym_del"),
}
EXTABLE_ENTRY = struct.Struct("<iiI")  # struct exception_table_entry: two offsets from themselves, the kind of fix-up
_FIRST = (1 << 31) - 1  # the highest priority: called first but for such handlers registered earlier
_NAME = b"probekit"


@record
class NotifierLayout:
    """Byte offsets in ``struct notifier_block``, and its size."""

    call: int
    """``notifier_call``."""
    following: int
    """``next``."""
    priority: int
    """``priority``."""
    size: int
    """Bytes of the structure."""


@record
class KsymLayout:
    """Byte offsets in ``struct bpf_prog_aux`` and ``struct bpf_prog``, and their sizes."""

    ksym: int
    """The ``struct bpf_ksym`` in ``bpf_prog_aux``."""
    start: int
    """In ``bpf_ksym``."""
    end: int
    """In ``bpf_ksym``."""
    name: int
    """In ``bpf_ksym``."""
    links: int
    """In ``bpf_ksym``: ``lnode``, its links on the kernel's list."""
    is_prog: int
    """In ``bpf_ksym``: ``prog``, whether the symbol is a program's."""
    prog: int
    """In ``bpf_prog_aux``: the pointer to ``bpf_prog``."""
    entries: int
    """In ``bpf_prog_aux``: ``num_exentries``."""
    table: int
    """In ``bpf_prog_aux``: ``extable``."""
    aux_size: int
    """Bytes of ``bpf_prog_aux``, rounded up to 16."""
    prog_aux: int
    """In ``bpf_prog``: the pointer to ``bpf_prog_aux``."""
    prog_size: int
    """Bytes of ``bpf_prog``."""

    @property
    def size(self) -> int:
        """How many bytes both structures take."""
        return self.aux_size + self.prog_size


@record
class Fixup:
    """What the kernel's exception table says of one instruction."""

    target: int
    """Address where execution goes on after a fault."""
    kind: int
    """The third word of the entry, which chooses the kernel's handler."""


@record
class TrapFacts:
    """How this guest's kernel handles INT3."""

    int3: int
    """The number of the event, ``DIE_INT3``."""
    regs: int
    """Offset of ``regs`` in ``die_args``."""
    ip: int
    """Offset of ``ip`` in ``pt_regs``."""
    cs: int
    """Offset of ``cs`` in ``pt_regs``."""
    block: NotifierLayout
    """Layout of the structure that we register."""
    chain: int | None
    """Address of the pointer to the first notifier of the chain, or None where it has no symbol."""
    ksym: KsymLayout | None
    """Layout of BPF symbols; None where the kernel cannot use an exception table of ours."""
    fixups: Mapping[int, Fixup]
    """The kernel's own exception table, by the instruction's address."""


@record
class TrapServices:
    """Adds our structures to the kernel's lists and removes them, by the kernel's functions."""

    functions: Mapping[ListEntryKind, tuple[int, int]]
    """Addresses of ``(add, remove)`` for each kind that the kernel has."""
    wait: int | None
    """Address of ``synchronize_rcu``."""

    def add(self, point: SafePoint, kind: ListEntryKind, addr: int) -> None:
        """Add our structure at ``addr`` to the kernel's list. The journal must have the registration before."""
        point.call(self.functions[kind][0], addr, purpose=AddListEntry(kind, addr))

    def remove(self, point: SafePoint, kind: ListEntryKind, addr: int) -> None:
        """Remove the structure at ``addr`` from the list. Nothing happens when it was never added.

        :meth:`settle` must be called before its memory is freed.
        """
        point.call(self.functions[kind][1], addr, purpose=RemoveListEntry(kind, addr))

    def settle(self, point: SafePoint) -> None:
        """Wait until no CPU that walks a list can still see a structure that was removed."""
        if self.wait is not None:
            point.call(self.wait)


def find_trap_services(find: Callable[[str], int | None]) -> TrapServices:
    """Look the functions up by name."""
    found: dict[ListEntryKind, tuple[int, int]] = {}
    for kind, (add, remove) in _FUNCTIONS.items():
        first, second = find(add), find(remove)
        if first is not None and second is not None:
            found[kind] = (first, second)
    return TrapServices(found, find("synchronize_rcu"))


def die_block(layout: NotifierLayout, function: int) -> bytes:
    """Make a ``struct notifier_block`` whose function is at ``function``."""
    block = bytearray(layout.size)
    struct.pack_into("<Q", block, layout.call, function)
    struct.pack_into("<i", block, layout.priority, _FIRST)
    return bytes(block)


def ksym_block(layout: KsymLayout, addr: int, *, start: int, end: int, table: int, entries: int) -> bytes:
    """Make a ``struct bpf_prog_aux`` for ``addr`` and the ``struct bpf_prog`` after it, for code at ``start..end``.

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
    """Make the table for ``addr``. ``copies``: ``(address, fix-up)`` of our copied instructions, within 2 GiB of it."""
    table = b""
    for copy, fixup in sorted(copies, key=lambda item: item[0]):
        at = addr + len(table)
        table += EXTABLE_ENTRY.pack(copy - at, fixup.target - at - 4, fixup.kind)
    return table
