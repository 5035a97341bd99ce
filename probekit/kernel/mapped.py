"""Which pages of a range of kernel addresses are mapped, from the page tables.

    mapped_pages(memory, tables, 0xffffffffc0000000, 0xffffffffff000000)   ->  (virtual, physical) of each 4 KiB page

Cost grows with what is mapped, not with the range: an absent table is skipped
with all that it would hold.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from probekit.kernel.view import PhysicalSource, Tables

__all__ = ("mapped_pages",)

_PAGE = 4096
_PRESENT, _LARGE = 1, 1 << 7
_ADDRESS = 0x000FFFFFFFFFF000
_LIMIT = 1 << 18  # pages: 1 GiB of mapped modules is no kernel that we know


def mapped_pages(source: PhysicalSource, tables: Tables, start: int, end: int) -> Iterator[tuple[int, int]]:
    """``(virtual, physical)`` of every mapped page in ``[start, end)``, in order, 262,144 of them at most.

    ``source``: reads physical memory; tables that it cannot read count as empty.
    """
    nodes = [(start & -(1 << 12 + 9 * tables.levels), tables.root)]
    for level in range(tables.levels, 0, -1):
        shift = 12 + 9 * (level - 1)
        following: list[tuple[int, int]] = []
        contents = source.read_many([(node, _PAGE) for _, node in nodes])
        for (base, _), table in zip(nodes, contents, strict=True):
            entries = struct.unpack("<512Q", table) if table is not None else ()
            for index, entry in enumerate(entries):
                addr = base + (index << shift)
                if not entry & _PRESENT or addr + (1 << shift) <= start or addr >= end:
                    continue
                frame = entry & _ADDRESS
                if level == 1:
                    following.append((addr, frame))
                elif level <= 3 and entry & _LARGE:
                    frame &= -(1 << shift)
                    pages = range(max(addr, start), min(addr + (1 << shift), end), _PAGE)
                    yield from ((page, frame + page - addr) for page in pages[:_LIMIT])
                else:
                    following.append((addr, frame))
        nodes = following[:_LIMIT]
    yield from nodes
