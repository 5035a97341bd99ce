"""Walk x86-64 page tables in guest physical memory: many addresses at once, level by level.

Four or five levels of 512 eight-byte entries, nine bits of the address each (Intel SDM vol. 3, section 4.5)::

    address = | sign | (PML5 9) | PML4 9 | PDPT 9 | PD 9 | PT 9 | offset 12 |

An entry with PS set in a PDPT (1 GiB) or PD (2 MiB) ends the walk early: it is the *leaf*.

    translate_many(source, root, [0xffffffff81001234])   ->  {0xffffffff81001234: 0x2a01234}
    list(mapped_pages(source, root, start, end))         ->  [(0xffffffffc0000000, 0x5b3000), ...]
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from probekit.kernel.memory import PAGE_SIZE
from probekit.target.api import Regs

__all__ = (
    "FLAG_NX",
    "FLAG_PRESENT",
    "FLAG_USER",
    "FLAG_WRITE",
    "Leaf",
    "PageTableRoot",
    "PhysicalMemory",
    "PhysicalSource",
    "mapped_pages",
    "root_candidates",
    "translate_many",
    "walk_many",
)

FLAG_PRESENT = 1 << 0
FLAG_WRITE = 1 << 1
FLAG_USER = 1 << 2
FLAG_NX = 1 << 63

_PS = 1 << 7  # in a PDPT or PD: the entry maps a large page
_FRAME = 0x000FFFFFFFFFF000
_LARGEST_LEAF_LEVEL = 3
_CR4_LA57 = 1 << 12
_EFER_LMA = 1 << 10  # long mode is active
_MAX_PAGES = 1 << 18  # 1 GiB of mapped modules is more than any known kernel has


@runtime_checkable
class PhysicalMemory(Protocol):
    """A target that can read guest physical memory: within the context, its addresses are physical."""

    def physical_memory(self) -> AbstractContextManager[None]: ...


class PhysicalSource(Protocol):
    """Reads guest physical memory. None stands for a range that cannot be read."""

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]: ...


@dataclass(frozen=True, slots=True)
class PageTableRoot:
    """The top of a tree of page tables."""

    physical: int
    """Guest physical address of the top table."""
    levels: int
    """4, or 5 with LA57 (CR4 bit 12)."""


class Leaf(NamedTuple):
    """The entry that maps a page: where the page is, and what may be done with it."""

    physical: int
    """Guest physical address of the byte that was asked for."""
    flags: int
    """The ``FLAG_*`` bits that hold over the whole walk: WRITE and USER need every level, one level sets NX."""


def root_candidates(regs: Iterable[Regs]) -> tuple[PageTableRoot, ...]:
    """Return every root that the vCPUs' CR3 may mean, kernel readings of page-table isolation first.

    With isolation the kernel's top table is at CR3 with bit 12 cleared (``PTI_USER_PGTABLE_BIT``); without it, bit 12
    is an address bit. Both readings are returned.
    """
    plain: dict[PageTableRoot, None] = {}
    cleared: dict[PageTableRoot, None] = {}
    for item in regs:
        values = item.values
        if "cr3" not in values or not values.get("efer", _EFER_LMA) & _EFER_LMA:
            continue
        levels = 5 if values.get("cr4", 0) & _CR4_LA57 else 4
        top = values["cr3"] & _FRAME
        (cleared if top & PAGE_SIZE else plain)[PageTableRoot(top & ~PAGE_SIZE, levels)] = None
        if top & PAGE_SIZE:
            plain[PageTableRoot(top, levels)] = None
    return (*cleared, *(root for root in plain if root not in cleared))


def translate_many(source: PhysicalSource, root: PageTableRoot, addrs: Iterable[int]) -> dict[int, int | None]:
    """Return the guest physical address of each virtual one, None where nothing is mapped."""
    return {a: leaf.physical if leaf is not None else None for a, leaf in walk_many(source, root, addrs).items()}


def walk_many(source: PhysicalSource, root: PageTableRoot, addrs: Iterable[int]) -> dict[int, Leaf | None]:
    """Return the leaf entry of each virtual address, None where nothing is mapped.

    The walk goes level by level, with one batch of reads for each. A table that ``source`` cannot read counts as empty.
    """
    result: dict[int, Leaf | None] = {}
    pending = dict.fromkeys(addrs, (root.physical, FLAG_PRESENT | FLAG_WRITE | FLAG_USER))
    for level in range(root.levels, 0, -1):
        shift = _shift(level)
        nodes = list(dict.fromkeys(node for node, _ in pending.values()))
        contents = dict(zip(nodes, source.read_many([(node, PAGE_SIZE) for node in nodes]), strict=True))
        following: dict[int, tuple[int, int]] = {}
        for addr, (node, flags) in pending.items():
            table = contents[node]
            index = addr >> shift & 0x1FF
            entry = int.from_bytes(table[8 * index : 8 * index + 8], "little") if table is not None else 0
            flags = (flags & entry) | ((flags | entry) & FLAG_NX)
            if not entry & FLAG_PRESENT:
                result[addr] = None
            elif _is_leaf(level, entry):
                low = (1 << shift) - 1
                result[addr] = Leaf((entry & _FRAME & ~low) | (addr & low), flags)
            else:
                following[addr] = (entry & _FRAME, flags)
        pending = following
    return result


def mapped_pages(source: PhysicalSource, root: PageTableRoot, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield ``(virtual, physical)`` of every mapped 4 KiB page in ``[start, end)``, in order, at most 262,144.

    The cost grows with what is mapped, not with the range: an absent table is skipped with all that it would hold.
    A table that ``source`` cannot read counts as empty.
    """
    nodes = [(start & -(1 << _shift(root.levels + 1)), root.physical)]
    for level in range(root.levels, 0, -1):
        shift = _shift(level)
        following: list[tuple[int, int]] = []
        contents = source.read_many([(node, PAGE_SIZE) for _, node in nodes])
        for (base, _), table in zip(nodes, contents, strict=True):
            entries = struct.unpack("<512Q", table) if table is not None else ()
            for index, entry in enumerate(entries):
                addr = base + (index << shift)
                if not entry & FLAG_PRESENT or addr + (1 << shift) <= start or addr >= end:
                    continue
                frame = entry & _FRAME
                if level > 1 and _is_leaf(level, entry):
                    frame &= -(1 << shift)
                    pages = range(max(addr, start), min(addr + (1 << shift), end), PAGE_SIZE)
                    yield from ((page, frame + page - addr) for page in pages[:_MAX_PAGES])
                else:
                    following.append((addr, frame))
        nodes = following[:_MAX_PAGES]
    yield from nodes


def _shift(level: int) -> int:
    """Return the lowest address bit of this level's index; level 1 is the page table."""
    return 12 + 9 * (level - 1)


def _is_leaf(level: int, entry: int) -> bool:
    return level == 1 or (level <= _LARGEST_LEAF_LEVEL and bool(entry & _PS))
