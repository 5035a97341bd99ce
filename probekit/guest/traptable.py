"""The hash of INT3 sites that the guest's trap handler looks in: open addressing, every search bounded.

    slot = (site * GOLDEN mod 2**64) >> shift        the first of at most `limit` slots in a row
    entry: site address, stub address                16 bytes; a site of 0 ends a search

It is complete before the first site goes live and never changes after that, so
that a processor in the middle of a search needs no lock.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ("ENTRY_SIZE", "GOLDEN", "TrapTable", "build_table", "find_stub", "table_size")

GOLDEN = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio, odd."""

ENTRY_SIZE = 16
_ENTRY = struct.Struct("<QQ")
_MASK = (1 << 64) - 1
_SPARSE = 4  # at most one slot in so many is in use: searches of one or two steps
_SMALLEST = 16


@dataclass(frozen=True, slots=True)
class TrapTable:
    """``data``: the entries; ``shift``: of the hash; ``limit``: slots that a search looks at, at most."""

    data: bytes
    shift: int
    limit: int

    @property
    def capacity(self) -> int:
        """Slots, a power of two."""
        return len(self.data) // ENTRY_SIZE


def _capacity(sites: int) -> int:
    return max(_SMALLEST, 1 << (sites * _SPARSE - 1).bit_length())


def table_size(sites: int) -> int:
    """Bytes of a table for so many sites."""
    return _capacity(sites) * ENTRY_SIZE if sites else 0


def build_table(stubs: Mapping[int, int]) -> TrapTable:
    """``stubs``: site address to stub address; neither is 0. Raises :class:`ValueError` otherwise."""
    if 0 in stubs or 0 in stubs.values():
        raise ValueError("address 0 is the mark of a free slot")
    capacity = _capacity(len(stubs))
    shift = 64 - (capacity.bit_length() - 1)
    slots: list[tuple[int, int]] = [(0, 0)] * capacity
    longest = 0
    for site, stub in sorted(stubs.items()):
        place, steps = (site * GOLDEN & _MASK) >> shift, 1
        while slots[place][0]:
            place, steps = (place + 1) % capacity, steps + 1
        slots[place] = (site, stub)
        longest = max(longest, steps)
    # One more, so that a search for an unknown site sees the free slot behind the longest run.
    return TrapTable(b"".join(_ENTRY.pack(*slot) for slot in slots), shift, min(longest + 1, capacity))


def find_stub(table: TrapTable, site: int) -> int:
    """What the handler finds: the stub of ``site``, or 0."""
    place = (site * GOLDEN & _MASK) >> table.shift
    for step in range(table.limit):
        key, stub = _ENTRY.unpack_from(table.data, (place + step) % table.capacity * ENTRY_SIZE)
        if key in (site, 0):
            return stub if key else 0
    return 0
